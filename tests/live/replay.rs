//! The small form of the main run (`--bin replay`): made-up sales, TLS, two hubs, a wiped broker, a few kills.

use world::replay::{Options, Source, run};
use world::till::Mode;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sales_survive_kills_and_a_wiped_broker() {
    for (seed, mode) in [(1, Mode::Single), (2, Mode::Batch(16))] {
        let options = Options {
            source: Source::Synthetic(3_000),
            stores: 2,
            tills: 3,
            kills: 3,
            hubs: 2,
            hub_kills: 1,
            seed,
            mode,
            tls: true,
            keep: None,
        };
        let report = Box::pin(run(&options)).await.unwrap();
        assert!(report.agrees(), "seed {seed}\n{}", report.text());
    }
}
