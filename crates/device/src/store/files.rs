//! Open handles of segments, for reading.
//!
//! There can be many thousand segments, so only the handles that were used last stay open.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use base::env::{Disk, File, Open};
use parking_lot::Mutex;

use super::segment::file_name;

/// Of the process's few hundred descriptors, so many for one device.
const OPEN_MAX: usize = 64;

pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    opened: Mutex<Opened>,
}

#[derive(Default)]
struct Opened {
    /// With the time of the last use, in uses.
    files: HashMap<u64, (Arc<dyn File>, u64)>,
    uses: u64,
}

impl Files {
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self {
            disk,
            dir,
            opened: Mutex::default(),
        }
    }

    pub(crate) fn path(&self, segment: u64) -> PathBuf {
        self.dir.join(file_name(segment))
    }

    /// The segment's handle, if it is open already.
    pub(crate) fn opened(&self, segment: u64) -> Option<Arc<dyn File>> {
        let mut opened = self.opened.lock();
        opened.uses += 1;
        let uses = opened.uses;
        let (file, used) = opened.files.get_mut(&segment)?;
        *used = uses;
        Some(file.clone())
    }

    /// The segment's handle. Waits for the disk if it has to be opened.
    pub(crate) fn open(&self, segment: u64) -> io::Result<Arc<dyn File>> {
        if let Some(file) = self.opened(segment) {
            return Ok(file);
        }
        let file = self.disk.open(&self.path(segment), Open::Read)?;
        let mut opened = self.opened.lock();
        while opened.files.len() >= OPEN_MAX {
            let oldest = opened.files.iter().min_by_key(|(_, (_, used))| *used);
            let oldest = *oldest.expect("there are some").0;
            opened.files.remove(&oldest);
        }
        let used = opened.uses;
        opened.files.insert(segment, (file.clone(), used));
        Ok(file)
    }

    /// The segment's file is going away.
    pub(crate) fn forget(&self, segment: u64) {
        self.opened.lock().files.remove(&segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn only_the_last_used_stay_open() {
        let disk = Arc::new(testkit::SimDisk::new(1 << 20));
        disk.create_dir(Path::new("/d")).unwrap();
        let files = Files::new(disk.clone(), "/d".into());
        let many = 2 * OPEN_MAX as u64;
        for segment in 0..many {
            disk.open(&files.path(segment), Open::Write).unwrap();
            files.open(segment).unwrap();
            files.open(0).unwrap();
        }
        assert!(files.opened(0).is_some());
        assert!(files.opened(1).is_none());
        assert!(files.opened(many - 1).is_some());
        assert_eq!(files.opened.lock().files.len(), OPEN_MAX);
        files.forget(0);
        assert!(files.opened(0).is_none());
    }
}
