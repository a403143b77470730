//! The file system of the box does what the disk in memory, on which everything else is tested, says that it does.

use crate::journal::disk::{Disk, Listed, OsDisk, read_whole, replace, without_blocks};
use rustix::io::Errno;
use std::io::ErrorKind;

fn disk() -> (tempfile::TempDir, OsDisk) {
    let directory = tempfile::tempdir().unwrap();
    let disk = OsDisk::new(&directory.path().join("made/where/missing")).unwrap();
    disk.create_dir("log").unwrap();
    (directory, disk)
}

fn names(disk: &dyn Disk, dir: &str) -> Vec<String> {
    disk.list(dir).unwrap().into_iter().map(|file| file.name).collect()
}

#[test]
fn files_are_made_written_read_cut_renamed_and_removed() {
    let (_directory, disk) = disk();
    let file = disk.create("log/one").unwrap();
    file.write_at(b"abcdef", 2).unwrap();
    file.sync_data().unwrap();
    assert_eq!((file.bytes().unwrap(), read_whole(&disk, "log/one", 100).unwrap()), (8, b"\0\0abcdef".to_vec()));
    assert_eq!(read_whole(&disk, "log/one", 3).unwrap(), b"\0\0a");
    let mut buffer = [9; 6];
    assert_eq!(file.read_at(&mut buffer, 4).unwrap(), 4, "it ends there");
    assert_eq!(&buffer, b"cdef\x09\x09");
    assert_eq!(file.read_at(&mut [], 4).unwrap(), 0);
    file.truncate(4).unwrap();
    file.preallocate(4096).unwrap();
    assert_eq!(disk.open_read("log/one").unwrap().bytes().unwrap(), 4096);
    file.preallocate(64).unwrap();
    assert_eq!(read_whole(&disk, "log/one", 6).unwrap(), b"\0\0ab\0\0");
    assert_eq!(file.bytes().unwrap(), 4096, "it never makes a file shorter");

    disk.create_dir("log/inner").unwrap();
    disk.rename("log/one", "log/two").unwrap();
    disk.sync_dir("log").unwrap();
    assert_eq!(disk.list("log").unwrap(), [Listed { name: "two".to_owned(), bytes: 4096 }], "directories are no files");
    disk.open("log/two").unwrap().write_at(b"z", 0).unwrap();
    assert_eq!(read_whole(&disk, "log/two", 1).unwrap(), b"z");
    assert_eq!(disk.create("log/two").unwrap().bytes().unwrap(), 0, "what is made anew is empty");
    disk.remove("log/two").unwrap();
    assert_eq!(names(&disk, "log"), Vec::<String>::new());
    for error in
        [disk.remove("log/two").unwrap_err(), disk.open("log/two").unwrap_err(), disk.sync_dir("no").unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    assert!(disk.free_bytes().unwrap() > 1 << 20);
}

#[test]
fn where_blocks_cannot_be_allocated_a_file_is_made_longer_and_never_shorter() {
    let file = tempfile::tempfile().unwrap();
    let length = || file.metadata().unwrap().len();
    for (error, bytes, then) in
        [(Errno::OPNOTSUPP, 100, 100), (Errno::NOSYS, 50, 100), (Errno::NOSYS, 200, 200), (Errno::OPNOTSUPP, 200, 200)]
    {
        without_blocks(&file, error, bytes).unwrap();
        assert_eq!(length(), then, "{error} {bytes}");
    }
    let refused = without_blocks(&file, Errno::NOSPC, 300).unwrap_err();
    assert_eq!((refused.kind(), length()), (ErrorKind::StorageFull, 200));
}

#[test]
fn a_file_is_replaced_whole_or_not_at_all() {
    let (_directory, disk) = disk();
    replace(&disk, "log", "state", b"first").unwrap();
    replace(&disk, "log", "state", b"2nd").unwrap();
    assert_eq!(read_whole(&disk, "log/state", 100).unwrap(), b"2nd");
    replace(&disk, "", "binding", b"root").unwrap();
    assert_eq!((names(&disk, "log"), names(&disk, "")), (vec!["state".to_owned()], vec!["binding".to_owned()]));
}

#[test]
fn one_process_holds_the_lock() {
    let (_directory, disk) = disk();
    let held = disk.lock("lock").unwrap();
    assert!(disk.lock("lock").is_err());
    drop(held);
    assert!(disk.lock("lock").is_ok());
}

/// After a failed sync nobody knows what is on the medium: the kernel may have thrown the pages away.
#[test]
fn after_a_failed_sync_nothing_is_written_but_the_word_of_it() {
    let (directory, disk) = disk();
    let file = disk.create("log/one").unwrap();
    file.write_at(b"one", 0).unwrap();
    let root = directory.path().join("made/where/missing");
    std::os::unix::fs::symlink("/dev/null", root.join("log/null")).unwrap();
    let null = disk.open("log/null").unwrap();
    assert_eq!(null.sync_data().unwrap_err().kind(), ErrorKind::InvalidInput, "a device that cannot be synced");
    assert!(null.sync_data().is_err(), "it is not tried again");
    let refused = [
        file.sync_data(),
        file.write_at(b"two", 0),
        file.truncate(1),
        file.preallocate(10),
        disk.create("log/two").map(drop),
        disk.create_dir("log/inner"),
        disk.rename("log/one", "log/two"),
        disk.remove("log/one"),
        disk.sync_dir("log"),
    ];
    assert!(refused.iter().all(Result::is_err), "{refused:?}");
    assert_eq!(read_whole(&disk, "log/one", 100).unwrap(), b"one", "reading goes on");
    assert_eq!(names(&disk, "log"), ["one"]);
    disk.write_aside("log/failed", b"why").unwrap();
    assert_eq!(read_whole(&disk, "log/failed", 100).unwrap(), b"why");
}
