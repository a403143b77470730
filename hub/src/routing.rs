//! Who deals with an exception: routes by class, code, region and store, the webhook that each tells, and when it is told again to others.
//!
//! Invariant: of the routes in the order of the configuration the first that matches holds; a route that asks for nothing matches all. Which
//! webhook a letter goes to is looked up by the route's name when it is delivered, so that an address can be changed under waiting letters.
//! This file reads no ledger and sends nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use counterfoil_proto::record::flag::{self, Class};
use ring::hmac;

/// Everything about routes.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// In the order in which they are tried.
    pub routes: Vec<Route>,
    /// The region of a store.
    pub regions: BTreeMap<String, String>,
    /// How letters are sent.
    pub sending: Sending,
    /// What certificates of webhooks are checked against; the machine's own where it is empty.
    pub roots: Vec<reqwest::Certificate>,
}

/// How letters are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    /// From the first byte of a request to the last of its answer.
    pub timeout: Duration,
    /// Before the second attempt; doubled before each further one, and moved by up to a quarter.
    pub retry_min: Duration,
    /// At most.
    pub retry_max: Duration,
}

impl Default for Sending {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), retry_min: Duration::from_secs(5), retry_max: Duration::from_hours(1) }
    }
}

/// One route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Unique, and kept: letters that wait are known by it.
    pub name: String,
    /// Only of this class.
    pub class: Option<Class>,
    /// Only these codes; all where it is empty.
    pub codes: Vec<String>,
    /// Only these regions; all where it is empty.
    pub regions: Vec<String>,
    /// Only these stores; all where it is empty.
    pub stores: Vec<String>,
    /// The queue of those who deal with it.
    pub owner: String,
    /// What is told of each change.
    pub webhook: Option<Webhook>,
    /// What happens when nobody deals with it.
    pub escalation: Option<Escalation>,
}

/// Whom an exception goes to that nobody dealt with.
#[derive(Clone, Debug)]
pub struct Escalation {
    /// After it was first seen, while it is open or acknowledged.
    pub after: Duration,
    /// Who deals with it then.
    pub owner: String,
    /// What is told then, once.
    pub webhook: Option<Webhook>,
}

/// Where letters go.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// `https`, or `http` to this machine.
    pub url: String,
    /// What signs them.
    pub secret: Option<Secret>,
}

/// The key of a signature.
#[derive(Clone)]
pub struct Secret(Arc<hmac::Key>);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

impl Secret {
    /// A key for HMAC-SHA256.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// `sha256=` and the signature of a body in hexadecimal digits.
    pub fn sign(&self, body: &[u8]) -> String {
        let mut text = "sha256=".to_owned();
        for byte in hmac::sign(&self.0, body).as_ref() {
            text.extend([byte >> 4, byte & 15].into_iter().filter_map(|digit| char::from_digit(digit.into(), 16)));
        }
        text
    }
}

impl Routes {
    /// The route of an exception.
    pub fn find(&self, code: &str, store_id: &str) -> Option<&Route> {
        let class = flag::finding(code).map_or(Class::Technical, |known| known.class);
        let region = self.regions.get(store_id);
        self.routes.iter().find(|route| {
            route.class.is_none_or(|wanted| wanted == class)
                && (route.codes.is_empty() || route.codes.iter().any(|wanted| wanted == code))
                && (route.stores.is_empty() || route.stores.iter().any(|wanted| wanted == store_id))
                && (route.regions.is_empty() || region.is_some_and(|region| route.regions.contains(region)))
        })
    }

    /// The route of that name.
    pub fn named(&self, name: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.name == name)
    }

    /// All webhooks, by what letters to them are known as.
    pub fn targets(&self) -> Vec<(String, Webhook)> {
        let mut targets = Vec::new();
        for route in &self.routes {
            targets.extend(route.webhook.clone().map(|webhook| (route.name.clone(), webhook)));
            let escalation = route.escalation.as_ref().and_then(|escalation| escalation.webhook.clone());
            targets.extend(escalation.map(|webhook| (escalation_target(&route.name), webhook)));
        }
        targets
    }
}

/// What letters of a route's escalation are known as; no route has such a name.
pub fn escalation_target(route: &str) -> String {
    format!("{route}/escalation")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A route for everything, to be narrowed.
    pub(crate) fn route(name: &str) -> Route {
        Route {
            name: name.to_owned(),
            class: None,
            codes: Vec::new(),
            regions: Vec::new(),
            stores: Vec::new(),
            owner: format!("{name}-desk"),
            webhook: None,
            escalation: None,
        }
    }

    #[test]
    fn the_first_route_that_matches_in_all_it_asks_for_holds() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let routes = Routes {
            routes: vec![
                Route { codes: texts(&["FORK", "CLONE"]), stores: texts(&["0001"]), ..route("one") },
                Route { regions: texts(&["north"]), class: Some(Class::Business), ..route("north") },
                Route { class: Some(Class::Technical), ..route("technical") },
                route("rest"),
            ],
            regions: [("0002", "north"), ("0003", "south")].map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
            ..Routes::default()
        };
        let of = |code, store| routes.find(code, store).map(|route| route.name.as_str());
        assert_eq!(of(flag::FORK, "0001"), Some("one"));
        assert_eq!(of(flag::FORK, "0002"), Some("technical"));
        assert_eq!(of(flag::TOTALS_MISMATCH, "0001"), Some("rest"), "another code, and no region");
        assert_eq!(of(flag::TOTALS_MISMATCH, "0002"), Some("north"));
        assert_eq!(of(flag::TOTALS_MISMATCH, "0003"), Some("rest"));
        assert_eq!(of("OF_A_LATER_VERSION", "0002"), Some("technical"));
        let none = Routes { routes: vec![Route { stores: texts(&["0009"]), ..route("x") }], ..Routes::default() };
        assert!(none.find(flag::FORK, "0001").is_none());
    }

    #[test]
    fn a_signature_is_that_of_rfc_4231() {
        let secret = Secret::new(b"Jefe");
        let signed = secret.sign(b"what do ya want for nothing?");
        assert_eq!(signed, "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
