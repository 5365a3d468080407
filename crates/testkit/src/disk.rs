//! A disk in memory that knows what would survive a power cut.
//!
//! Each file has two states: what a reader sees, and what is on the platter. A write goes to the
//! first; [`File::sync`] takes it to the second, and so does every write through an
//! [`Open::DirectDurable`] handle. Names have the same two states, joined by [`Disk::sync_dir`].
//! [`SimDisk::power_cut`] drops the first state, and of what lay between the two keeps whatever
//! its seed says: all, nothing, some writes, some sectors of a write.
//!
//! A sync that failed loses what it should have saved for ever, even if the next one succeeds: that is
//! what the page cache does.

mod content;
mod names;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::env::{BLOCK_BYTES, Disk, File, Open, Space};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::Random;
use content::{Change, Content};
use names::Names;

/// What a fault is asked about, and what the tests count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    Open,
    CreateDir,
    List,
    Rename,
    Remove,
    SyncDir,
    Read,
    Write,
    Sync,
    Allocate,
    Truncate,
    Punch,
}

/// Decides whether a call fails; see [`SimDisk::fail_when`].
type Fault = Box<dyn FnMut(Call, &Path) -> Option<ErrorKind> + Send>;

/// Decides whether a call hangs; see [`SimDisk::hang_when`].
type Hang = Box<dyn FnMut(Call, &Path) -> bool + Send>;

/// A simulated disk; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
    /// Calls that hang wait here.
    healed: Arc<Condvar>,
}

struct World {
    total_bytes: u64,
    names: Names,
    inodes: HashMap<u64, Inode>,
    next: u64,
    /// Handles of an earlier boot are dead.
    boot: u64,
    fault: Option<Fault>,
    hang: Option<Hang>,
    hung: u64,
    calls: BTreeMap<Call, u64>,
    /// Counts down; the power goes when it reaches zero.
    power_left: Option<u64>,
    cold: bool,
}

#[derive(Default)]
struct Inode {
    seen: Content,
    platter: Content,
    /// What differs between the two, in order. Durable changes in it wait for older ones only so
    /// that the order is kept.
    pending: Vec<(Change, Durable)>,
    handles: u64,
    locked_by: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Durable {
    Yes,
    No,
}

impl SimDisk {
    pub fn new(total_bytes: u64) -> Self {
        let world = World {
            total_bytes,
            names: Names::default(),
            inodes: HashMap::new(),
            next: 1,
            boot: 0,
            fault: None,
            hang: None,
            hung: 0,
            calls: BTreeMap::new(),
            power_left: None,
            cold: false,
        };
        Self {
            world: Arc::new(Mutex::new(world)),
            healed: Arc::default(),
        }
    }

    /// Asks `fault` before every call from now on; the call fails with what it answers. Half of a
    /// failing write happens; a failing sync loses what it should have saved.
    pub fn fail_when(&self, fault: impl FnMut(Call, &Path) -> Option<ErrorKind> + Send + 'static) {
        self.world.lock().fault = Some(Box::new(fault));
    }

    /// The `n`th call from now fails, counted from 0 over all kinds.
    pub fn fail_nth(&self, n: u64, error: ErrorKind) {
        let mut left = Some(n);
        self.fail_when(move |_, _| match left {
            Some(0) => {
                left = None;
                Some(error)
            }
            _ => {
                left = left.map(|n| n - 1);
                None
            }
        });
    }

    /// Asks `hang` before every call from now on; the call waits while it answers yes, as on a disk
    /// that neither works nor fails. What the page cache has is still read.
    pub fn hang_when(&self, hang: impl FnMut(Call, &Path) -> bool + Send + 'static) {
        self.world.lock().hang = Some(Box::new(hang));
    }

    /// No call fails or hangs any more; those that did hang go on.
    pub fn heal(&self) {
        let mut world = self.world.lock();
        world.fault = None;
        world.hang = None;
        self.healed.notify_all();
    }

    /// Waits while the call hangs.
    fn turn(&self, call: Call, path: &Path) -> MutexGuard<'_, World> {
        let mut world = self.world.lock();
        while world.hang.as_mut().is_some_and(|hang| hang(call, path)) {
            world.hung += 1;
            self.healed.wait(&mut world);
            world.hung -= 1;
        }
        world
    }

    /// The power goes at the `n`th call from now, counted from 0: it and all after it fail, until
    /// [`SimDisk::power_cut`].
    pub fn power_off_at(&self, n: u64) {
        self.world.lock().power_left = Some(n);
    }

    /// Cuts the power, if it is not off yet, and starts again: what was not durable is lost as the
    /// seed says, all handles are dead, all locks are free, faults are gone.
    pub fn power_cut(&self, seed: u64) {
        let mut random = Random::new(seed);
        let mut world = self.world.lock();
        world.boot += 1;
        world.fault = None;
        world.hang = None;
        self.healed.notify_all();
        world.power_left = None;
        world.names.power_cut(&mut random);
        let names = world.names.clone();
        world.inodes.retain(|inode, _| names.links(*inode) > 0);
        // Not in the order of a hash table, which no seed decides.
        let mut inodes: Vec<_> = world.inodes.iter_mut().collect();
        inodes.sort_by_key(|(inode, _)| **inode);
        for (_, inode) in inodes {
            inode.power_cut(&mut random);
        }
    }

    /// Whether [`File::read_cached_at`] finds nothing in the cache, ever.
    pub fn set_cold(&self, cold: bool) {
        self.world.lock().cold = cold;
    }

    /// How many calls of this kind there were.
    pub fn calls(&self, call: Call) -> u64 {
        self.world.lock().calls.get(&call).copied().unwrap_or(0)
    }

    /// How many calls of any kind there were.
    pub fn calls_all(&self) -> u64 {
        self.world.lock().calls.values().sum()
    }

    /// How many calls hang now.
    pub fn calls_hung(&self) -> u64 {
        self.world.lock().hung
    }

    /// Changes what is stored, on the platter and in what readers see: `by` is combined with the bytes at
    /// `offset` by exclusive or.
    pub fn flip(&self, path: &Path, offset: u64, by: &[u8]) {
        let mut world = self.world.lock();
        let inode = world.names.file(path).expect("the file exists");
        let inode = world.inodes.get_mut(&inode).expect("names have inodes");
        for content in [&mut inode.seen, &mut inode.platter] {
            let mut bytes = vec![0; by.len()];
            content.read(&mut bytes, offset);
            bytes.iter_mut().zip(by).for_each(|(byte, by)| *byte ^= by);
            content.write(offset, &bytes);
        }
    }

    /// The directory disappears with all in it, as when a disk is pulled or deleted below us.
    pub fn vanish(&self, dir: &Path) {
        self.world.lock().names.vanish(dir);
    }

    /// Changes the size of the disk.
    pub fn resize(&self, total_bytes: u64) {
        self.world.lock().total_bytes = total_bytes;
    }
}

impl World {
    /// Counts the call and lets it fail where it should.
    fn enter(&mut self, call: Call, path: &Path) -> io::Result<()> {
        *self.calls.entry(call).or_default() += 1;
        match &mut self.power_left {
            Some(0) => return Err(io::Error::other("the power is off")),
            Some(left) => *left -= 1,
            None => {}
        }
        match self.fault.as_mut().and_then(|fault| fault(call, path)) {
            Some(kind) => Err(io::Error::new(kind, format!("injected into {call:?}"))),
            None => Ok(()),
        }
    }

    fn space(&self) -> Space {
        let used = self
            .inodes
            .values()
            .map(|inode| inode.seen.allocated_bytes());
        Space {
            total_bytes: self.total_bytes,
            free_bytes: self.total_bytes.saturating_sub(used.sum()),
        }
    }

    fn drop_unused(&mut self, inode: u64) {
        let unused = |i: &Inode| i.handles == 0 && self.names.links(inode) == 0;
        if self.inodes.get(&inode).is_some_and(unused) {
            self.inodes.remove(&inode);
        }
    }
}

impl Inode {
    fn change(&mut self, change: Change, durable: Durable) {
        self.seen.apply(&change);
        if durable == Durable::Yes && self.pending.is_empty() {
            self.platter.apply(&change);
        } else {
            self.pending.push((change, durable));
        }
    }

    fn sync(&mut self) {
        for (change, _) in self.pending.drain(..) {
            self.platter.apply(&change);
        }
    }

    /// The cache believes that it has written what it has not.
    fn lose(&mut self) {
        self.pending.retain(|(_, durable)| *durable == Durable::Yes);
        self.sync();
    }

    fn power_cut(&mut self, random: &mut Random) {
        // Everything, nothing, or anything of what was not synced.
        let luck = random.below(4);
        for (change, durable) in self.pending.drain(..) {
            match (durable, luck) {
                (Durable::Yes, _) | (_, 0) => self.platter.apply(&change),
                (Durable::No, 1) => {}
                (Durable::No, _) => self.platter.apply_torn(&change, random),
            }
        }
        self.seen = self.platter.clone();
        self.handles = 0;
        self.locked_by = None;
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut world = self.turn(Call::Open, path);
        world.enter(Call::Open, path)?;
        let inode = match (world.names.file(path), how) {
            (Some(inode), _) => inode,
            (None, Open::Read | Open::ReadDirect) => return Err(ErrorKind::NotFound.into()),
            (None, Open::Write | Open::Direct | Open::DirectDurable) => {
                let inode = world.next;
                world.names.link(path, inode)?;
                world.next += 1;
                world.inodes.insert(inode, Inode::default());
                inode
            }
        };
        let handle = world.next;
        world.next += 1;
        world.inodes.get_mut(&inode).expect("just found").handles += 1;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            path: path.to_owned(),
            inode,
            handle,
            boot: world.boot,
            how,
        }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut world = self.turn(Call::CreateDir, path);
        world.enter(Call::CreateDir, path)?;
        world.names.create_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut world = self.turn(Call::List, dir);
        world.enter(Call::List, dir)?;
        world.names.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.turn(Call::Rename, from);
        world.enter(Call::Rename, from)?;
        let replaced = world.names.file(to);
        world.names.rename(from, to)?;
        if let Some(inode) = replaced {
            world.drop_unused(inode);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.turn(Call::Remove, path);
        world.enter(Call::Remove, path)?;
        let inode = world.names.file(path).ok_or(ErrorKind::NotFound)?;
        world.names.unlink(path);
        world.drop_unused(inode);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.turn(Call::SyncDir, dir);
        world.enter(Call::SyncDir, dir)?;
        world.names.sync_dir(dir)?;
        // A file that lost its last durable name here is gone for good.
        let names = world.names.clone();
        world
            .inodes
            .retain(|inode, i| i.handles > 0 || names.links(*inode) > 0);
        Ok(())
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let world = self.world.lock();
        match world.names.is_dir(dir) {
            true => Ok(world.space()),
            false => Err(ErrorKind::NotFound.into()),
        }
    }
}

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    inode: u64,
    handle: u64,
    boot: u64,
    how: Open,
}

impl SimFile {
    fn enter<R>(
        &self,
        call: Call,
        act: impl FnOnce(&mut World, io::Result<()>) -> io::Result<R>,
    ) -> io::Result<R> {
        let mut world = self.disk.turn(call, &self.path);
        if world.boot != self.boot {
            return Err(io::Error::other("the handle is from before the power cut"));
        }
        let writes = !matches!(call, Call::Read);
        if writes && matches!(self.how, Open::Read | Open::ReadDirect) {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let entered = world.enter(call, &self.path);
        act(&mut world, entered)
    }

    fn change(&self, call: Call, change: Change) -> io::Result<()> {
        let durable = match (&change, self.how) {
            (Change::Write { .. }, Open::DirectDurable) => Durable::Yes,
            _ => Durable::No,
        };
        self.enter(call, |world, entered| {
            let free = world.space().free_bytes;
            let inode = self.inode(world);
            match entered {
                Ok(()) if inode.seen.cost(&change) > free => {
                    return Err(ErrorKind::StorageFull.into());
                }
                Ok(()) => inode.change(change, durable),
                // What failed happened by half.
                Err(error) => {
                    if let Change::Write { offset, bytes } = change {
                        let bytes = bytes[..bytes.len() / 2].into();
                        inode.change(Change::Write { offset, bytes }, Durable::No);
                    }
                    return Err(error);
                }
            }
            Ok(())
        })
    }

    fn inode<'a>(&self, world: &'a mut World) -> &'a mut Inode {
        let inode = world.inodes.get_mut(&self.inode);
        inode.expect("an inode lives as long as its handles")
    }

    /// `pieces` are where pieces of memory begin, and their lengths.
    fn check_aligned(
        &self,
        mut pieces: impl Iterator<Item = (usize, usize)>,
        offset: u64,
    ) -> io::Result<()> {
        let aligned = |n: usize| n.is_multiple_of(BLOCK_BYTES);
        let direct = !matches!(self.how, Open::Read | Open::Write);
        let fits = offset.is_multiple_of(BLOCK_BYTES as u64)
            && pieces.all(|(start, len)| len == 0 || aligned(start) && aligned(len));
        match direct && !fits {
            true => Err(io::Error::new(ErrorKind::InvalidInput, "not aligned")),
            false => Ok(()),
        }
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let place = (buffer.as_ptr().addr(), buffer.len());
        self.check_aligned([place].into_iter(), offset)?;
        self.enter(Call::Read, |world, entered| {
            entered?;
            Ok(self.inode(world).seen.read(buffer, offset))
        })
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let place = (buffer.as_ptr().addr(), buffer.len());
        self.check_aligned([place].into_iter(), offset)?;
        if self.disk.world.lock().cold {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.read_at(buffer, offset)
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let places = pieces.iter().map(|p| (p.as_ptr().addr(), p.len()));
        self.check_aligned(places, offset)?;
        let mut bytes = Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
        pieces
            .iter()
            .for_each(|piece| bytes.extend_from_slice(piece));
        let bytes = bytes.into();
        self.change(Call::Write, Change::Write { offset, bytes })
    }

    fn sync(&self) -> io::Result<()> {
        self.enter(Call::Sync, |world, entered| {
            let off = world.power_left == Some(0);
            let inode = self.inode(world);
            match &entered {
                Ok(()) => inode.sync(),
                Err(_) if off => {}
                Err(_) => inode.lose(),
            }
            entered
        })
    }

    fn len(&self) -> io::Result<u64> {
        let mut world = self.disk.world.lock();
        Ok(self.inode(&mut world).seen.len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.change(Call::Allocate, Change::Allocate { len })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.change(Call::Truncate, Change::Truncate { len })
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(Call::Punch, Change::Punch { offset, len })
    }

    fn allocated_bytes(&self) -> io::Result<u64> {
        let mut world = self.disk.world.lock();
        Ok(self.inode(&mut world).seen.allocated_bytes())
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut world = self.disk.world.lock();
        let inode = self.inode(&mut world);
        let owner = *inode.locked_by.get_or_insert(self.handle);
        Ok(owner == self.handle)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut world = self.disk.world.lock();
        if world.boot != self.boot {
            return;
        }
        let inode = self.inode(&mut world);
        inode.handles -= 1;
        if inode.locked_by == Some(self.handle) {
            inode.locked_by = None;
        }
        world.drop_unused(self.inode);
    }
}

#[cfg(test)]
mod tests;
