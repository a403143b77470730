//! The broker as `config/mosquitto` configures it: who gets in, and what each may read and write.

use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, Incoming, MqttOptions, QoS, TlsConfiguration, Transport,
};
use world::broker::{Broker, acl_of_agent, acl_of_hub};
use world::pki::{Identity, Pki};

const LIMIT: Duration = Duration::from_mins(1);

/// A connection of its own to the broker.
struct Peer {
    client: AsyncClient,
    events: EventLoop,
}

impl Peer {
    async fn connect(broker: &Broker, identity: Option<&Identity>) -> Result<Self, ConnectionError> {
        let id = identity.map_or("anybody", |identity| identity.common_name.as_str());
        Self::connect_as(broker, identity, id).await
    }

    /// Whoever it is, it calls itself `id`.
    async fn connect_as(broker: &Broker, identity: Option<&Identity>, id: &str) -> Result<Self, ConnectionError> {
        let _installed_already = rustls::crypto::ring::default_provider().install_default().is_err();
        let mut options = MqttOptions::new(id, "127.0.0.1", broker.port());
        if let Some(identity) = identity {
            let [ca, certificate, key] =
                [&identity.ca_file, &identity.cert_file, &identity.key_file].map(|file| std::fs::read(file).unwrap());
            let tls = TlsConfiguration::Simple { ca, alpn: None, client_auth: Some((certificate, key)) };
            options.set_transport(Transport::tls_with_config(tls));
        }
        let (client, events) = AsyncClient::new(options, 16);
        let mut peer = Self { client, events };
        peer.until(|incoming| matches!(incoming, Incoming::ConnAck(_)).then_some(())).await?;
        Ok(peer)
    }

    /// Polls until `look` finds something.
    async fn until<T>(&mut self, look: impl Fn(&Incoming) -> Option<T>) -> Result<T, ConnectionError> {
        let poll = async {
            loop {
                let event = self.events.poll().await?;
                if let Event::Incoming(incoming) = event
                    && let Some(found) = look(&incoming)
                {
                    return Ok(found);
                }
            }
        };
        tokio::time::timeout(LIMIT, poll).await.expect("the broker answers within the limit")
    }

    async fn subscribe(&mut self, filter: &str) {
        self.client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
        self.until(|incoming| matches!(incoming, Incoming::SubAck(_)).then_some(())).await.unwrap();
    }

    async fn publish(&mut self, topic: &str) {
        self.client.publish(topic, QoS::AtLeastOnce, false, topic).await.unwrap();
        self.until(|incoming| matches!(incoming, Incoming::PubAck(_)).then_some(())).await.unwrap();
    }

    /// The topic of the next message.
    async fn next(&mut self) -> String {
        let topic = |incoming: &Incoming| {
            let Incoming::Publish(publish) = incoming else { return None };
            Some(publish.topic.clone())
        };
        self.until(topic).await.unwrap()
    }
}

#[tokio::test]
async fn each_agent_is_confined_to_its_own_topics() {
    let pki = Pki::new();
    let acl = acl_of_hub("hub1") + &acl_of_agent("0042", "box1") + &acl_of_agent("0042", "box2");
    let broker = Broker::tls(&pki, &acl).await;
    let mut hub = Peer::connect(&broker, Some(&pki.client("hub1"))).await.unwrap();
    hub.subscribe("counterfoil/v1/+/+/up/#").await;
    let mut one = Peer::connect(&broker, Some(&pki.agent("0042", "box1"))).await.unwrap();
    let mut two = Peer::connect(&broker, Some(&pki.agent("0042", "box2"))).await.unwrap();
    two.subscribe("counterfoil/#").await;

    // An agent may not speak for another, nor downwards; what it may say comes through, in this order.
    one.publish("counterfoil/v1/0042/box2/up/trade").await;
    one.publish("counterfoil/v1/0042/box1/down/ack").await;
    one.publish("counterfoil/v1/0042.box1/up/trade").await;
    one.publish("counterfoil/v1/0042/box1/up/trade").await;
    assert_eq!(hub.next().await, "counterfoil/v1/0042/box1/up/trade");

    // An agent hears what is addressed to it, and nothing of what went by before, though it asked for everything.
    hub.publish("counterfoil/v1/0042/box1/down/ack").await;
    hub.publish("counterfoil/v1/0042/box2/down/ack").await;
    assert_eq!(two.next().await, "counterfoil/v1/0042/box2/down/ack");
}

#[tokio::test]
async fn a_client_id_that_is_not_the_certificates_is_not_taken() {
    let pki = Pki::new();
    let acl = acl_of_hub("hub1") + &acl_of_agent("0042", "box1") + &acl_of_agent("0077", "box1");
    let broker = Broker::tls(&pki, &acl).await;
    let mut hub = Peer::connect(&broker, Some(&pki.client("hub1"))).await.unwrap();
    let mut one = Peer::connect(&broker, Some(&pki.agent("0042", "box1"))).await.unwrap();
    one.subscribe("counterfoil/v1/0042/box1/down/ack").await;
    // Taken at its word, this would end the session of the box whose name it uses; it would not hear what comes next.
    let mut thief = Peer::connect_as(&broker, Some(&pki.agent("0077", "box1")), "0042.box1").await.unwrap();
    thief.publish("counterfoil/v1/0077/box1/up/trade").await;
    hub.publish("counterfoil/v1/0042/box1/down/ack").await;
    assert_eq!(one.next().await, "counterfoil/v1/0042/box1/down/ack");
}

#[tokio::test]
async fn whose_rules_are_taken_out_can_do_nothing_any_more_in_an_open_session() {
    let pki = Pki::new();
    let files = tempfile::tempdir().unwrap();
    let (acl_file, crl_file) = (files.path().join("acl"), files.path().join("crl.pem"));
    let both = acl_of_hub("hub1") + &acl_of_agent("0042", "box1") + &acl_of_agent("0042", "box2");
    std::fs::write(&acl_file, &both).unwrap();
    std::fs::write(&crl_file, pki.revocation_list(&[])).unwrap();
    let mut broker = Broker::with_files(world::process::free_port(), &pki.server(), &acl_file, &crl_file).await;
    let mut hub = Peer::connect(&broker, Some(&pki.client("hub1"))).await.unwrap();
    hub.subscribe("counterfoil/v1/+/+/up/#").await;
    let identity = pki.agent("0042", "box1");
    let mut one = Peer::connect(&broker, Some(&identity)).await.unwrap();
    let mut two = Peer::connect(&broker, Some(&pki.agent("0042", "box2"))).await.unwrap();
    one.publish("counterfoil/v1/0042/box1/up/trade").await;
    assert_eq!(hub.next().await, "counterfoil/v1/0042/box1/up/trade");
    std::fs::write(&acl_file, acl_of_hub("hub1") + &acl_of_agent("0042", "box2")).unwrap();
    broker.reload();
    // Before it has read them, both come through; what is sent first comes first.
    let deadline = world::wait::Deadline::new(LIMIT);
    loop {
        one.publish("counterfoil/v1/0042/box1/up/trade").await;
        two.publish("counterfoil/v1/0042/box2/up/trade").await;
        if hub.next().await == "counterfoil/v1/0042/box2/up/trade" {
            break;
        }
        assert_eq!(hub.next().await, "counterfoil/v1/0042/box2/up/trade");
        deadline.rest_for("the rules to be read").await;
    }
    // The list of revoked certificates keeps it out at the handshake, from the broker's next start on.
    std::fs::write(&crl_file, pki.revocation_list(&[&identity])).unwrap();
    broker.stop().await;
    broker.start().await;
    assert!(Peer::connect(&broker, Some(&identity)).await.is_err());
    assert!(Peer::connect(&broker, Some(&pki.agent("0042", "box2"))).await.is_ok());
}

#[tokio::test]
async fn nobody_comes_in_without_a_certificate_of_the_authority() {
    let pki = Pki::new();
    let broker = Broker::tls(&pki, &acl_of_agent("0042", "box1")).await;
    assert!(Peer::connect(&broker, None).await.is_err());
    let elsewhere = Pki::new();
    let mut stranger = elsewhere.agent("0042", "box1");
    stranger.ca_file = pki.ca_file();
    assert!(Peer::connect(&broker, Some(&stranger)).await.is_err());
    assert!(Peer::connect(&broker, Some(&pki.agent("0042", "box1"))).await.is_ok());
}

#[tokio::test]
async fn a_wiped_broker_is_an_empty_one_on_the_same_port() {
    let mut broker = Broker::plain().await;
    let keep = async |broker: &Broker| {
        let mut peer = Peer::connect(broker, None).await.unwrap();
        peer.client.publish("kept", QoS::AtLeastOnce, true, "kept").await.unwrap();
        peer.until(|incoming| matches!(incoming, Incoming::PubAck(_)).then_some(())).await.unwrap();
    };
    let heard = async |broker: &Broker| {
        let mut peer = Peer::connect(broker, None).await.unwrap();
        peer.subscribe("#").await;
        peer.client.publish("end", QoS::AtLeastOnce, false, "end").await.unwrap();
        peer.next().await
    };
    keep(&broker).await;
    broker.stop().await;
    broker.start().await;
    assert_eq!(heard(&broker).await, "kept");
    broker.kill();
    broker.wipe();
    broker.start().await;
    assert_eq!(heard(&broker).await, "end");
}
