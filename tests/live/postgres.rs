//! The database of the test world: what is committed survives a crash, and an earlier copy can be put back.

use world::postgres::Postgres;

async fn count(postgres: &Postgres) -> i64 {
    let client = postgres.client("books").await.unwrap();
    client.query_one("SELECT count(*) FROM sale", &[]).await.unwrap().get(0)
}

async fn insert(postgres: &Postgres) {
    let client = postgres.client("books").await.unwrap();
    client.execute("INSERT INTO sale DEFAULT VALUES", &[]).await.unwrap();
}

#[tokio::test]
async fn a_commit_survives_a_crash_and_a_backup_comes_back() {
    let mut postgres = Postgres::new().await;
    let url = postgres.create_database("books").await;
    assert!(url.ends_with("/books"));
    postgres.client("books").await.unwrap().batch_execute("CREATE TABLE sale (id serial)").await.unwrap();
    insert(&postgres).await;
    postgres.crash().await;
    postgres.start().await;
    assert_eq!(count(&postgres).await, 1);
    let backup = postgres.backup().await;
    insert(&postgres).await;
    assert_eq!(count(&postgres).await, 2);
    postgres.restore(&backup).await;
    assert_eq!(count(&postgres).await, 1);
    let client = postgres.client("books").await.unwrap();
    let fsync: String = client.query_one("SHOW fsync", &[]).await.unwrap().get(0);
    assert_eq!(fsync, "on");
}
