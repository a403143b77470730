//! Who gets a certificate, for which name, and who does not; on each database that this machine has.

use super::*;
use crate::ledger::tests_place::{Place, places};
use counterfoil_config::certificate::RequestKey;

fn deed() -> Deed {
    let [who, route, what] = ["Ann", "counterfoil-hub ca", "a test"].map(str::to_owned);
    Deed { who, role: "cli", peer: None, route, what }
}

const LIFE: Duration = Duration::from_hours(24 * 90);
const GRACE: Duration = Duration::from_hours(24 * 30);

struct Ground {
    authority: Authority,
    _place: Place,
    directory: tempfile::TempDir,
}

async fn each(mut test: impl AsyncFnMut(&Ground)) {
    for place in places() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let config = AuthorityConfig {
            identity: Identity { cert_file: at("ca.pem"), key_file: at("ca.key") },
            certificate_life: LIFE,
            renew_expired_within: GRACE,
            crl_file: Some(at("crl.pem")),
            acl_file: Some(at("acl")),
            topic_prefix: "counterfoil/v1".to_owned(),
        };
        let fingerprint = init(&config, "Test").unwrap();
        assert!(matches!(init(&config, "Test"), Err(AuthorityError::There(_))), "an authority is made once");
        let ledger = Arc::new(place.open().await);
        let authority = Authority::open(config, ledger).unwrap();
        assert_eq!(authority.fingerprint(), fingerprint);
        test(&Ground { authority, _place: place, directory }).await;
    }
}

impl Ground {
    async fn token(&self, name: &str) -> String {
        self.authority.make_token(name, Duration::from_hours(1), &deed()).await.unwrap().0
    }

    async fn enrol(&self, token: &str, key: &RequestKey, name: &str) -> Result<CertificateDer<'static>, Denied> {
        Ok(self.authority.enrol(token, &key.request(name).unwrap()).await?.remove(0))
    }

    /// A certificate of this authority that ended so long ago; the ledger does not know it.
    fn ended(&self, name: &str, key: &RequestKey, ago: Duration) -> Vec<CertificateDer<'static>> {
        let request = read(&key.request(name).unwrap()).unwrap();
        let mut params = CertificateParams::default();
        self.authority.fill(&mut params, name, IdentityRole::Agent, LIFE);
        params.not_before = time(now_s() - ago.as_secs() - LIFE.as_secs());
        params.not_after = time(now_s() - ago.as_secs());
        vec![params.signed_by(&request.public_key, &self.authority.issuer).unwrap().der().clone()]
    }
}

#[tokio::test]
async fn a_token_lets_in_its_name_with_the_first_key_and_nobody_else() {
    each(async |ground| {
        let (key, other) = (RequestKey::make().unwrap(), RequestKey::make().unwrap());
        let token = ground.token("0042.box1").await;
        assert!(matches!(ground.enrol("guessed", &key, "0042.box1").await, Err(Denied::Token)));
        assert!(matches!(ground.enrol(&token, &key, "0042.box2").await, Err(Denied::Name { .. })));
        let facts = Facts::of(&ground.enrol(&token, &key, "0042.box1").await.unwrap()).unwrap();
        assert_eq!((facts.common_name.as_str(), facts.public_key), ("0042.box1", key.public_key().unwrap()));
        let life_s = facts.not_after_s - facts.not_before_s;
        assert_eq!(life_s, LIFE.as_secs() + BACKDATED.as_secs());
        // The first answer may have been lost; a second key is somebody else.
        assert!(ground.enrol(&token, &key, "0042.box1").await.is_ok());
        assert!(matches!(ground.enrol(&token, &other, "0042.box1").await, Err(Denied::TokenUsed)));
        let (late, _) = ground.authority.make_token("0042.box1", Duration::ZERO, &deed()).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), async {
            while !matches!(ground.enrol(&late, &other, "0042.box1").await, Err(Denied::TokenLate(_))) {}
        })
        .await
        .unwrap();
        // A request is signed with its own key.
        let mut forged = key.request("0042.box1").unwrap();
        *forged.last_mut().unwrap() ^= 1;
        let token = ground.token("0042.box1").await;
        assert!(matches!(ground.authority.enrol(&token, &forged).await, Err(Denied::Request(_))));
    })
    .await;
}

#[tokio::test]
async fn a_certificate_renews_itself_within_bounds_and_only_for_its_own_name() {
    each(async |ground| {
        let key = RequestKey::make().unwrap();
        let request = key.request("0042.box1").unwrap();
        let day = Duration::from_hours(24);
        let within = ground.ended("0042.box1", &key, GRACE.saturating_sub(day));
        let next = ground.authority.renew(&within, &request).await.unwrap();
        assert!(Facts::of(&next[0]).unwrap().not_after_s > now_s());
        let other = key.request("0042.box2").unwrap();
        assert!(matches!(ground.authority.renew(&within, &other).await, Err(Denied::Name { .. })));
        let late = ground.ended("0042.box1", &key, GRACE + day);
        assert!(matches!(ground.authority.renew(&late, &request).await, Err(Denied::Late { .. })));
        assert!(matches!(ground.authority.renew(&[], &request).await, Err(Denied::Unproven)));
    })
    .await;
}

#[tokio::test]
async fn whoever_is_revoked_stays_out_until_a_newer_token_lets_the_name_in() {
    each(async |ground| {
        let ledger = ground.authority.ledger();
        let (old, new) = (RequestKey::make().unwrap(), RequestKey::make().unwrap());
        let first = ground.token("0042.box1").await;
        let certificate = ground.enrol(&first, &old, "0042.box1").await.unwrap();
        let files = Identity {
            cert_file: ground.directory.path().join("hub.pem"),
            key_file: ground.directory.path().join("hub.key"),
        };
        ground.authority.issue("hub1", IdentityRole::Hub, &[], LIFE, &files, &deed()).await.unwrap();
        let prefix = "counterfoil/v1";
        let rules = upkeep::access_rules(&ledger.identities().await.unwrap(), prefix);
        assert!(rules.contains("user 0042.box1\ntopic write counterfoil/v1/0042/box1/state\n"), "{rules}");
        assert!(rules.contains("user hub1\ntopic read counterfoil/v1/+/+/state\n"), "{rules}");
        let unused = ground.token("0042.box1").await;

        ledger.revoke("0042.box1", "stolen", &deed()).await.unwrap();
        let barred = upkeep::barred(ledger).await.unwrap();
        assert_eq!(barred.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0042.box1"]);
        let request = old.request("0042.box1").unwrap();
        let chain = [certificate.clone()];
        assert!(matches!(ground.authority.renew(&chain, &request).await, Err(Denied::Revoked(_))));
        for token in [&first, &unused] {
            assert!(matches!(ground.enrol(token, &old, "0042.box1").await, Err(Denied::Token)));
        }
        let rules = upkeep::access_rules(&ledger.identities().await.unwrap(), prefix);
        assert!(!rules.contains("0042.box1") && rules.contains("user hub1"), "{rules}");
        let list = ground.authority.revocation_list().await.unwrap();
        assert!(list.starts_with("-----BEGIN X509 CRL-----"), "{list}");
        assert_eq!(ledger.revoked_certificates().await.unwrap()[0].serial, Facts::of(&certificate).unwrap().serial);

        let token = ground.token("0042.box1").await;
        let again = ground.enrol(&token, &new, "0042.box1").await.unwrap();
        assert!(upkeep::barred(ledger).await.unwrap().is_empty());
        assert!(ground.authority.renew(&[again], &new.request("0042.box1").unwrap()).await.is_ok());
        assert!(
            matches!(ground.authority.renew(&chain, &request).await, Err(Denied::Revoked(_))),
            "the old one stays out"
        );
        let identities = ledger.identities().await.unwrap();
        let shown: Vec<_> =
            identities.iter().map(|identity| (identity.common_name.as_str(), identity.certificates)).collect();
        assert_eq!(shown, [("0042.box1", 3), ("hub1", 1)]);
        let trail = crate::ledger::Ledger::audit(&**ledger, None, 100).await.unwrap();
        let trail: Vec<_> = trail.iter().rev().map(|entry| (entry.who.as_str(), entry.role.as_str())).collect();
        let (person, own) = (("Ann", "cli"), ("0042.box1", "box"));
        assert_eq!(trail, [person, own, person, person, person, person, own, own], "each that changed something");
    })
    .await;
}
