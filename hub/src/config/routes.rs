//! `[[exceptions.route]]` and `[[exceptions.region]]`: the keys of their tables, and what they come to.
//!
//! Invariant: names are unique, a store is in one region, a route names regions that there are, an address is `https` or on this machine, and
//! secrets stand in files of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use counterfoil_config::key::Form::{Choice, Duration as DurationForm, Path as PathForm, Text, Texts};
use counterfoil_config::key::Presence::{Optional, Required};
use counterfoil_config::key::{DAY, Key, key};
use counterfoil_config::written::{Fault, Written};
use counterfoil_proto::record::flag::Class;

use super::Check;
use crate::routing::{Escalation, Route, Routes, Secret, Sending, Webhook};

/// Bytes of a secret; a shorter one can be guessed.
const SECRET_BYTES_MIN: usize = 16;

pub(super) const REGION: &[Key] = &[
    key("name", Text, Required, "the region"),
    key("stores", Texts, Required, "its stores; each in one region at most"),
];

pub(super) const ROUTE: &[Key] = &[
    key(
        "name",
        Text,
        Required,
        "unique, 1 to 32 letters, digits, '_' or '-'; kept, since letters that wait are known by it",
    ),
    key("class", Choice(&["business", "technical"]), Optional, "only these; all when left out"),
    key("codes", Texts, Optional, "only these; all when left out"),
    key("regions", Texts, Optional, "only these; all when left out"),
    key("stores", Texts, Optional, "only these; all when left out"),
    key("owner", Text, Required, "the queue of those who deal with it"),
    key("webhook", Text, Optional, "what is told of each change: https://…, or http:// to this machine"),
    key("secret_file", PathForm, Optional, "file with what signs the letters of this route, at least 16 bytes"),
    key(
        "escalate_after",
        DurationForm { min_ms: 1_000, max_ms: 365 * DAY },
        Optional,
        "after it was first seen, while nobody ended it; needs escalate_owner",
    ),
    key("escalate_owner", Text, Optional, "who deals with it then"),
    key("escalate_webhook", Text, Optional, "what is told then, once"),
];

impl Check<'_> {
    pub(super) fn routes(&mut self) -> Option<Routes> {
        let duration = |written: &Written, name: &str| Duration::from_millis(written.number(name));
        let sending = Sending {
            timeout: duration(&self.written, "exceptions.timeout"),
            retry_min: duration(&self.written, "exceptions.retry_min"),
            retry_max: duration(&self.written, "exceptions.retry_max"),
        };
        let before = self.faults.len();
        let roots = self.roots();
        let mut regions = BTreeMap::new();
        for table in self.written.tables("exceptions.region").to_vec() {
            let name = table.text("name").unwrap_or_default().to_owned();
            for store in table.texts("stores") {
                if regions.insert(store.clone(), name.clone()).is_some() {
                    self.fault_in(&table, "stores", &format!("names the store {store}, which is in a region already"));
                }
            }
        }
        let (mut routes, mut names) = (Vec::new(), BTreeSet::new());
        for table in self.written.tables("exceptions.route").to_vec() {
            let route = self.route(&table);
            if !names.insert(route.name.clone()) {
                self.fault_in(&table, "name", "is the name of another route");
            }
            for region in route.regions.iter().filter(|region| !regions.values().any(|known| known == *region)) {
                self.fault_in(&table, "regions", &format!("names {region}, which no [[exceptions.region]] is"));
            }
            routes.push(route);
        }
        (self.faults.len() == before).then_some(Routes { routes, regions, sending, roots })
    }

    fn roots(&mut self) -> Vec<reqwest::Certificate> {
        let Some(file) = self.path("exceptions.ca_file") else { return Vec::new() };
        let found = std::fs::read(file).ok().and_then(|pem| reqwest::Certificate::from_pem_bundle(&pem).ok());
        let found = found.filter(|roots| !roots.is_empty());
        if found.is_none() {
            self.fault("exceptions.ca_file", "holds no usable certificate");
        }
        found.unwrap_or_default()
    }

    fn route(&mut self, table: &Written) -> Route {
        let name = table.text("name").unwrap_or_default().to_owned();
        let good = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
        if !(1..=32).contains(&name.len()) || !name.chars().all(good) {
            self.fault_in(table, "name", "has to be 1 to 32 letters, digits, '_' or '-'");
        }
        let secret = self.secret(table);
        let webhook = self.webhook(table, "webhook", secret.clone());
        let then = self.webhook(table, "escalate_webhook", secret);
        let after = table.number_or_none("escalate_after").map(Duration::from_millis);
        let owner = table.text("escalate_owner").map(str::to_owned);
        if after.is_some() != owner.is_some() {
            self.fault_in(table, "escalate_after", "and `escalate_owner` belong together; write both or none");
        }
        if then.is_some() && after.is_none() {
            self.fault_in(table, "escalate_webhook", "needs `escalate_after` and `escalate_owner` beside it");
        }
        let escalation = after.zip(owner).map(|(after, owner)| Escalation { after, owner, webhook: then });
        Route {
            class: table
                .text("class")
                .map(|class| if class == "business" { Class::Business } else { Class::Technical }),
            codes: table.texts("codes").to_vec(),
            regions: table.texts("regions").to_vec(),
            stores: table.texts("stores").to_vec(),
            owner: table.text("owner").unwrap_or_default().to_owned(),
            name,
            webhook,
            escalation,
        }
    }

    fn secret(&mut self, table: &Written) -> Option<Secret> {
        let file = self.near(table.text("secret_file")?);
        match std::fs::read(&file) {
            Ok(bytes) if bytes.trim_ascii_end().len() >= SECRET_BYTES_MIN => Some(Secret::new(bytes.trim_ascii_end())),
            Ok(_) => {
                self.fault_in(table, "secret_file", "holds fewer than 16 bytes, which can be guessed");
                None
            }
            Err(error) => {
                self.fault_in(table, "secret_file", &format!("cannot be read: {error}"));
                None
            }
        }
    }

    fn webhook(&mut self, table: &Written, name: &str, secret: Option<Secret>) -> Option<Webhook> {
        let url = table.text(name)?;
        if !is_address(url) {
            self.fault_in(
                table,
                name,
                "cannot be taken; write https://host/path without a password, or http:// to this machine",
            );
            return None;
        }
        Some(Webhook { url: url.to_owned(), secret })
    }

    fn fault_in(&mut self, table: &Written, name: &str, what: &str) {
        let message = format!("`{name}` {what}");
        self.faults.push(Fault { file: self.file.to_owned(), origin: table.origin(name), message });
    }
}

fn is_address(text: &str) -> bool {
    let Ok(url) = text.parse::<reqwest::Url>() else { return false };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_here = host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    let is_secure = url.scheme() == "https" || (url.scheme() == "http" && is_here);
    is_secure && !host.is_empty() && url.username().is_empty() && url.password().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const GOOD: &str = "[mqtt]\nurl = \"mqtt://127.0.0.1:1883\"\n[ledger]\nurl = \"sqlite:hub.db\"\n";

    fn load(more: &str) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), "sixteen bytes or more\n").unwrap();
        std::fs::write(directory.path().join("short"), "short\n").unwrap();
        let file = directory.path().join("hub.toml");
        std::fs::write(&file, format!("{GOOD}{more}")).unwrap();
        Config::load_with(&file, []).map_err(|error| error.to_string())
    }

    #[test]
    fn routes_stand_in_the_order_of_the_file_with_their_regions() {
        let config = load(
            "[exceptions]\ntimeout = \"2s\"\n\
            [[exceptions.region]]\nname = \"north\"\nstores = [\"0001\", \"0002\"]\n\
            [[exceptions.route]]\nname = \"forks\"\ncodes = [\"FORK\"]\nregions = [\"north\"]\nowner = \"it\"\n\
            webhook = \"https://desk.example/in\"\nsecret_file = \"secret\"\n\
            escalate_after = \"4h\"\nescalate_owner = \"head_of_it\"\nescalate_webhook = \"http://[::1]:99/\"\n\
            [[exceptions.route]]\nname = \"rest\"\nclass = \"business\"\nowner = \"finance\"\n",
        )
        .unwrap();
        let routes = &config.exceptions;
        assert_eq!(routes.sending, Sending { timeout: Duration::from_secs(2), ..Sending::default() });
        assert_eq!(routes.regions.get("0002").map(String::as_str), Some("north"));
        let names: Vec<&str> = routes.routes.iter().map(|route| route.name.as_str()).collect();
        assert_eq!(names, ["forks", "rest"]);
        let forks = &routes.routes[0];
        let escalation = forks.escalation.as_ref().unwrap();
        assert_eq!((escalation.after, escalation.owner.as_str()), (Duration::from_hours(4), "head_of_it"));
        assert!(forks.webhook.as_ref().unwrap().secret.is_some() && escalation.webhook.is_some());
        assert_eq!(routes.targets().len(), 2);
        let shown = config.to_string();
        assert!(shown.contains("[[exceptions.route]]\nname = \"forks\"  # line "), "{shown}");
        assert!(!shown.contains("sixteen"), "{shown}");
    }

    #[test]
    fn what_is_wrong_in_a_route_is_refused_with_its_line() {
        let route = |more: &str| format!("[[exceptions.route]]\nname = \"a\"\nowner = \"x\"\n{more}\n");
        let refused = |text: &str, expected: &str| {
            let error = load(text).unwrap_err();
            assert!(error.contains(expected), "{error}\nlacks\n{expected}");
        };
        refused(&route("webhook = \"http://desk.example/\""), "hub.toml:8: `webhook` cannot be taken");
        refused(&route("webhook = \"https://me:word@desk.example/\""), "`webhook` cannot be taken");
        refused(&route("escalate_after = \"1h\""), "`escalate_owner` belong together");
        refused(&route("escalate_webhook = \"https://desk.example/\""), "needs `escalate_after`");
        refused(&route("secret_file = \"short\""), "holds fewer than 16 bytes");
        refused(&route("secret_file = \"none\""), "`secret_file` cannot be read");
        refused(&route("regions = [\"north\"]"), "names north, which no [[exceptions.region]] is");
        refused(
            &route("code = \"FORK\""),
            "hub.toml:8: [[exceptions.route]]: `code` is not a key of the hub; did you mean `codes`?",
        );
        refused(&format!("{}{}", route(""), route("")), "`name` is the name of another route");
        refused("[exceptions]\nca_file = \"short\"\n", "`exceptions.ca_file` holds no usable certificate");
        refused("[[exceptions.route]]\nname = \"a\"\n", "hub.toml:5: [[exceptions.route]]: `owner` is missing");
        refused("[exceptions]\nroute = \"a\"\n", "`exceptions.route` must be a list of tables");
        let region = |name: &str| format!("[[exceptions.region]]\nname = \"{name}\"\nstores = [\"1\"]\n");
        refused(&format!("{}{}", region("a"), region("b")), "names the store 1, which is in a region already");
    }
}
