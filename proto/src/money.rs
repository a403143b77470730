//! Amounts, prices and quantities, exact: minor units of an ISO 4217 currency, or decimals; never floats.
