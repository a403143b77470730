//! What holds while nothing fails.

use super::*;

#[test]
fn committed_records_are_read_back_and_staged_ones_are_not() {
    let mut world = World::new(small());
    assert!(world.opened.created);
    let keys = world.trade(3);
    assert_eq!(keys.iter().map(|key| key.seq.0).collect::<Vec<_>>(), [1, 2, 3]);
    let (identities, stored) = document(99, 10);
    let staged = world.journal().stage(Lane::Stock, &identities, &stored).unwrap();
    let mut reader = world.journal().reader();
    assert_eq!(reader.read(staged.key.lane_key(), Seq::FIRST, 1, 1).unwrap(), Read::NotYet);
    assert!(world.journal().read_at(staged.position).is_err());
    world.journal().unstage();
    assert_eq!(world.journal().find(identities[0]).unwrap(), Found::Nothing);
    assert_eq!(world.journal().next_seq(Lane::Stock), Seq::FIRST);
    assert!(world.verify().is_empty());
}

#[test]
fn segments_turn_and_everything_survives_a_clean_restart() {
    let mut world = World::new(small());
    for _ in 0..30 {
        world.append(&[Lane::Trade, Lane::Stock], 200).unwrap();
    }
    assert!(world.journal().figures().segments > 4);
    world.journal.take().unwrap().close().unwrap();
    world.disk.power_cut(Cut::DropAll);
    let opened = world.open().clone();
    assert!(
        opened.clean && opened.damage.is_empty() && opened.tail_cut.is_none() && opened.rewritten_bytes == 0,
        "{opened:?}"
    );
    let parent = opened.parent.unwrap();
    assert_eq!((parent.epoch, parent.lanes[0].last), (epoch(1), seq(30)));
    assert_eq!(opened.wall_last, Some(NOW));
    assert!(world.verify().is_empty());
}

#[test]
fn an_epoch_is_shown_to_nobody_before_its_first_record_is_synced() {
    let mut turned = 0;
    // Somewhere in this range the new epoch's first record is the one for which the segment turns.
    for filled in 1..40 {
        let mut world = World::new(small());
        for _ in 0..filled {
            world.trade(1);
        }
        world.open();
        let segments = world.journal().figures().segments;
        world.begin_epoch();
        let (keys, stored) = document(99, 100);
        world.journal().stage(Lane::Trade, &keys, &stored).unwrap();
        turned += world.journal().figures().segments - segments;
        let shown = |world: &mut World| world.journal().reader().lanes().iter().any(|view| view.epoch == epoch(2));
        assert!(!shown(&mut world), "a power cut now, and this epoch never was");
        world.journal().commit(NOW).unwrap();
        assert!(shown(&mut world));
    }
    assert!(turned > 0);
}

#[test]
fn each_start_begins_a_new_epoch_that_names_its_parent() {
    let mut world = World::new(small());
    for _ in 0..4 {
        world.trade(2);
        world.journal = None;
        world.disk.kill();
        world.open();
    }
    let views = world.journal().lanes();
    assert_eq!(
        views.iter().map(|view| view.parent).collect::<Vec<_>>(),
        [None, Some(epoch(1)), Some(epoch(2)), Some(epoch(3))]
    );
    assert!(views.iter().all(|view| view.lanes[0].last == seq(2) && !view.live));
    assert!(world.verify().is_empty());
}

#[test]
fn second_process_is_refused_and_so_is_a_foreign_directory() {
    let world = World::new(small());
    let again = Journal::open(Arc::new(world.disk.clone()), small(), &source(), 1);
    assert!(matches!(again, Err(OpenError::Locked { .. })));
    world.disk.kill();
    let foreign = Source { agent_id: AgentId::new("box2").unwrap(), ..source() };
    assert!(matches!(
        Journal::open(Arc::new(world.disk.clone()), small(), &foreign, 1),
        Err(OpenError::ForeignSource { .. })
    ));
    assert!(world.disk.delete("binding"));
    assert!(matches!(
        Journal::open(Arc::new(world.disk.clone()), small(), &foreign, 1),
        Err(OpenError::ForeignSource { .. })
    ));
}

#[test]
fn a_snapshot_counts_when_its_last_part_is_synced() {
    let mut world = World::new(small());
    world.trade(3);
    let start = world.journal().stage_local(0, 3, &[1; 300]).unwrap();
    world.journal().stage_local(1, 3, &[2; 300]).unwrap();
    world.journal().commit(NOW).unwrap();
    assert_eq!(world.journal().snapshot(), None);
    for _ in 0..10 {
        world.trade(2);
    }
    world.journal().stage_local(2, 3, &[3; 300]).unwrap();
    assert_eq!(world.journal().snapshot(), None);
    world.journal().commit(NOW).unwrap();
    assert_eq!(world.journal().snapshot(), Some(start));
    // An unfinished later one does not replace it, not even over a restart.
    world.journal().stage_local(0, 2, &[4; 10]).unwrap();
    world.journal().commit(NOW).unwrap();
    world.disk.kill();
    assert_eq!(world.open().snapshot, Some(start));
    let parts: Vec<_> = world
        .journal()
        .replay(start)
        .filter_map(|entry| match entry.unwrap() {
            Replayed::Frame { frame: Frame::Local { part, parts, bytes }, .. } => Some((part, parts, bytes.len())),
            Replayed::Frame { .. } | Replayed::Damaged { .. } => None,
        })
        .collect();
    assert_eq!(parts, [(0, 3, 300), (1, 3, 300), (2, 3, 300), (0, 2, 10)]);
    assert!(world.verify().is_empty());
}

#[test]
fn replay_goes_on_where_a_checkpoint_stood() {
    let mut world = World::new(small());
    for _ in 0..10 {
        world.trade(3);
    }
    let checkpoint = world.journal().end();
    assert_eq!(world.journal().replay(checkpoint).count(), 0);
    for _ in 0..10 {
        world.trade(3);
    }
    assert_eq!(world.journal().replay(checkpoint).count(), 30);
    let nexts: Vec<_> = world
        .journal()
        .replay(Position::START)
        .map(|entry| match entry.unwrap() {
            Replayed::Frame { next, .. } => next,
            Replayed::Damaged { .. } => panic!("nothing is damaged"),
        })
        .collect();
    for (index, next) in nexts.iter().enumerate() {
        assert_eq!(world.journal().replay(*next).count(), nexts.len() - index - 1);
    }
}

#[test]
fn reader_keeps_its_bounds_and_follows_many_lanes() {
    let mut world = World::new(small());
    for _ in 0..40 {
        world.append(&[Lane::Trade, Lane::Stock, Lane::Ops, Lane::Trade], 120).unwrap();
    }
    let mut reader = world.journal().reader();
    let trade = lane_key(epoch(1), Lane::Trade);
    let Read::Records { stored, .. } = reader.read(trade, seq(5), 1000, 600).unwrap() else { panic!("records") };
    assert!(stored.iter().map(Vec::len).sum::<usize>() <= 600 && stored.len() > 1);
    let Read::Records { stored, .. } = reader.read(trade, seq(5), 3, 1).unwrap() else { panic!("records") };
    assert_eq!(stored.len(), 1, "one record at least, whatever the bound");
    let Read::Records { first, stored } = reader.clone().read(trade, seq(79), 100, 100_000).unwrap() else {
        panic!("records")
    };
    assert_eq!((first, stored.len()), (seq(79), 2));
    assert_eq!(reader.read(trade, seq(81), 1, 1).unwrap(), Read::NotYet);
    assert!(world.verify().is_empty());
}

#[test]
fn a_record_larger_than_a_segment_fits() {
    let mut world = World::new(small());
    world.append(&[Lane::Trade, Lane::Trade], 20_000).unwrap();
    world.append(&[Lane::Trade], 700_000).unwrap();
    world.trade(1);
    world.disk.kill();
    world.open();
    assert!(world.verify().is_empty());
    let (keys, _) = document(1, 1);
    let stored = vec![0; limits::PAYLOAD_BYTES_MAX + 1];
    world.begin_epoch();
    assert!(matches!(world.journal().stage(Lane::Trade, &keys, &stored), Err(StageError::TooLarge { .. })));
}

#[test]
fn a_full_group_is_refused_before_it_grows() {
    let mut world = World::new(small());
    world.begin_epoch();
    let stored = vec![0; limits::PAYLOAD_BYTES_MAX];
    let mut staged = 0;
    while world.journal().stage(Lane::Trade, &[], &stored).is_ok() {
        staged += 1;
    }
    assert!(matches!(world.journal().stage(Lane::Trade, &[], &stored), Err(StageError::GroupFull)));
    assert_eq!(world.journal().commit(NOW).unwrap().records, staged);
    assert!(world.journal().stage(Lane::Trade, &[], &stored).is_ok());
}

#[test]
fn one_commit_is_one_write_and_one_sync() {
    let mut world = World::new(JournalConfig { segment_bytes: 1 << 20, ..small() });
    world.trade(1);
    let (syncs, changes) = (world.disk.syncs(), world.disk.changes());
    world.trade(64);
    assert_eq!((world.disk.syncs() - syncs, world.disk.changes() - changes), (1, 2));
}

#[test]
fn a_thousand_starts_with_a_sale_each_stay_small() {
    let mut world = World::new(JournalConfig { segment_bytes: 256 * 1024, ..small() });
    for _ in 0..1000_u32 {
        world.begin_epoch_numbered();
        world.trade(1);
        world.disk.kill();
        world.open();
    }
    let figures = world.journal().figures();
    assert!(figures.segments <= 4, "{figures:?}");
    assert_eq!(world.journal().lanes().len(), 1000);
    assert!(world.verify().is_empty());
}

#[test]
fn a_real_directory_works_too() {
    let directory = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(OsDisk::new(directory.path()).unwrap());
    let (mut journal, opened) = Journal::open(Arc::clone(&disk), small(), &source(), 5).unwrap();
    assert!(opened.created);
    assert!(matches!(Journal::open(Arc::clone(&disk), small(), &source(), 5), Err(OpenError::Locked { .. })));
    journal.start_epoch(epoch(1));
    for n in 0..100 {
        let (keys, stored) = document(n, 100);
        journal.stage(Lane::Trade, &keys, &stored).unwrap();
        journal.commit(NOW).unwrap();
    }
    drop(journal);
    let (mut journal, opened) = Journal::open(disk, small(), &source(), 5).unwrap();
    assert!(opened.rewritten_bytes > 0 && opened.damage.is_empty(), "{opened:?}");
    for n in 0..100 {
        assert!(matches!(journal.find(key_of(n)).unwrap(), Found::Synced(_)));
    }
    assert_eq!(journal.replay(Position::START).count(), 100);
}

impl World {
    /// Epochs beyond 255 for the test above.
    fn begin_epoch_numbered(&mut self) {
        let count = self.journal().lanes().len();
        let mut epoch = [7; 16];
        epoch[..8].copy_from_slice(&(count as u64).to_le_bytes());
        self.journal().start_epoch(Epoch(epoch));
    }
}

#[test]
fn a_reader_knows_the_chain_after_every_record_that_no_gap_hides() {
    let mut world = World::new(small());
    (0..40).for_each(|_| drop(world.trade(1)));
    let key = lane_key(epoch(1), Lane::Trade);
    let mut chains = vec![Chain::genesis(key.epoch, key.lane)];
    for (record, (_, stored)) in &world.acked {
        chains.push(chains.last().unwrap().next(record.seq, Digest::of(stored)));
    }
    assert!(world.names(".seg").len() > 1, "over several segments");
    let known = |world: &mut World| -> Vec<Option<Chain>> {
        let mut reader = world.journal().reader();
        (0..=reader.last(key).0).map(|seq| reader.chain(key, Seq(seq)).unwrap()).collect()
    };
    assert_eq!(known(&mut world), chains.iter().copied().map(Some).collect::<Vec<_>>());
    assert_eq!(world.journal().reader().chain(key, Seq(41)).unwrap(), None);

    let name = world.names(".seg")[0].clone();
    let inside = world.disk.content(&name).unwrap().windows(4).position(|bytes| bytes == b"\"pad").unwrap();
    world.disk.flip(&name, inside, 1);
    assert_eq!(world.journal().handle_damage(1).unwrap().len(), 1);
    assert_eq!(known(&mut world)[1], Some(chains[1]), "the header of the next group states what the damage hides");

    let mut world = World::new(small());
    world.trade(3);
    let name = world.names(".seg")[0].clone();
    let inside = world.disk.content(&name).unwrap().windows(4).position(|bytes| bytes == b"\"pad").unwrap();
    world.disk.flip(&name, inside, 1);
    assert_eq!(world.journal().handle_damage(1).unwrap().len(), 1);
    let after = known(&mut world);
    assert_eq!(after[1..3], [None, None], "nothing states it within a group");
    assert!(after[3].is_some(), "the head is known while it runs");
}
