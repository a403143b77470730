//! An ingress that is served in this process, and one exchange with it over a socket.
//!
//! Its owner records nothing: that is not the decoders' business.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use counterfoil::agent::{Request, channel};
use counterfoil::answer::{Refused, Status};
use counterfoil::config::IngressConfig;
use counterfoil::ingress::Ingress;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// How long a peer of the ingress may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An exchange takes milliseconds; one that takes so long hangs.
const HANG: Duration = Duration::from_mins(1);

struct Served {
    runtime: Runtime,
    address: SocketAddr,
}

fn serve() -> Served {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let config = IngressConfig {
        listen: "127.0.0.1:0".parse().expect("an address"),
        unix_socket: None,
        tls: None,
        tokens: None,
        allowed_hosts: Vec::new(),
        connections_max: 16,
        peer_connections_max: 16,
        allowance: counterfoil::ingress::peers::Allowance { per_second: 1_000_000, burst: 1_000_000 },
        body_bytes_max: 4 << 20,
        bodies_bytes_max: 16 << 20,
        header_timeout: PATIENCE,
        body_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        drain_timeout: PATIENCE,
        queue_max: 16,
        profiles: counterfoil::legacy::Profiles::default(),
        certificates: Vec::new(),
    };
    let status = Status { store_id: "0042".into(), ready: true, mode: "accepting".into(), ..Status::default() };
    let address = runtime.block_on(async move {
        let (agent, mut inbox) = channel(config.queue_max, status);
        let ingress = Ingress::bind(&config, super::context(), agent).await.expect("a port");
        let address = ingress.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Some(request) = inbox.requests.recv().await {
                // Whoever asks something else gets no answer at all, as from an owner that went away.
                if let Request::Submit { reply, .. } = request {
                    drop(reply.send(Err(Refused::Busy)));
                }
            }
        });
        tokio::spawn(ingress.serve(std::future::pending()));
        address
    });
    Served { runtime, address }
}

/// Sends bytes and reads what comes back until the ingress ends. `hangs_up`: a peer that has said all, and ends its side at once.
pub(super) fn exchange(bytes: &[u8], hangs_up: bool) -> Vec<u8> {
    static SERVED: OnceLock<Served> = OnceLock::new();
    let served = SERVED.get_or_init(serve);
    served.runtime.block_on(async {
        let all = async {
            let mut socket = TcpStream::connect(served.address).await?;
            let mut answer = Vec::new();
            let (mut from, mut to) = socket.split();
            // The ingress may answer, and end, before it has read everything.
            let write = async {
                drop(to.write_all(bytes).await);
                if hangs_up {
                    drop(to.shutdown().await);
                }
            };
            let read = async { drop(from.read_to_end(&mut answer).await) };
            tokio::join!(write, read);
            Ok::<_, std::io::Error>(answer)
        };
        tokio::time::timeout(HANG, all).await.expect("the connection does not hang").expect("a connection")
    })
}
