//! Checks that the file of an environment has the structure that LMDB takes for granted.
//!
//! LMDB follows page numbers and offsets as it finds them, and its pages have no checksums: a flipped
//! bit in one of them ends the process. So whoever opens a file that may be damaged has it read here
//! first. What keys and values hold is not looked at, but for the order of the keys: our rows have
//! checksums of their own.
//!
//! Written after the structures in `mdb.c` of LMDB 0.9 (page, node, database, meta).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Of a page.
const HEADER_BYTES: usize = 16;
const NODE_BYTES: usize = 8;
const DATABASE_BYTES: usize = 48;
/// No page.
const NONE: u64 = u64::MAX;
/// LMDB's own bound.
const DEPTH_MAX: u16 = 32;

/// Flags of a page.
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
const OVERFLOW: u16 = 4;
const META: u16 = 8;

/// Flags of a node.
const BIG: u16 = 1;
const SUBDATABASE: u16 = 2;

/// Flag of a database whose keys are numbers: that of free pages.
const INTEGER_KEYS: u16 = 8;

/// Reads the structure of the environment in `dir`; there may be none.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if it is damaged.
pub(crate) fn verify(dir: &Path) -> io::Result<()> {
    let file = match File::open(dir.join("data.mdb")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let len = file.metadata()?.len();
    let first = MetaPage::read(&file, 0)?;
    let second = MetaPage::read(&file, first.page_bytes as u64)?;
    if first.page_bytes != second.page_bytes {
        return Err(damaged("its first pages differ"));
    }
    let newest = match first.transaction < second.transaction {
        true => second,
        false => first,
    };
    // The file may end before the last page, if that is free. More than this is never free.
    const FREE_PAGES_MAX: u64 = 1 << 32;
    let pages = newest.last_page.saturating_add(1);
    if pages > len / newest.page_bytes as u64 + FREE_PAGES_MAX {
        return Err(damaged("it is shorter than it says"));
    }
    let mut walk = Walk {
        file: &file,
        page_bytes: newest.page_bytes,
        pages,
        seen: BTreeMap::new(),
    };
    walk.see(0)?;
    walk.see(1)?;
    let [free, main] = &newest.databases;
    walk.database(free)?;
    walk.database(main)
}

fn damaged(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// One of the two pages that a commit begins at.
struct MetaPage {
    page_bytes: usize,
    /// That of free pages and that of named databases.
    databases: [Database; 2],
    last_page: u64,
    transaction: u64,
}

#[derive(Clone, Copy)]
struct Database {
    flags: u16,
    depth: u16,
    root: u64,
}

impl Database {
    fn decode(bytes: &[u8]) -> Self {
        Self {
            flags: u16_at(bytes, 4),
            depth: u16_at(bytes, 6),
            root: u64_at(bytes, 40),
        }
    }
}

impl MetaPage {
    fn read(file: &File, at: u64) -> io::Result<Self> {
        const MAGIC: u32 = 0xBEEF_C0DE;
        const VERSION: u32 = 1;
        /// After magic, version, address and size of the map.
        const DATABASES_AT: usize = 24;
        const LAST_PAGE_AT: usize = DATABASES_AT + 2 * DATABASE_BYTES;

        let mut page = [0; HEADER_BYTES + LAST_PAGE_AT + 16];
        read_at(file, &mut page, at)?;
        let body = &page[HEADER_BYTES..];
        let databases = [DATABASES_AT, DATABASES_AT + DATABASE_BYTES];
        let databases = databases.map(|at| Database::decode(&body[at..]));
        let page_bytes = u32_at(body, DATABASES_AT) as usize;
        let is_ours = u16_at(&page, 10) & META != 0
            && u32_at(body, 0) == MAGIC
            && u32_at(body, 4) == VERSION
            && u64_at(body, 8) == 0
            && (4096..=32768).contains(&page_bytes)
            && page_bytes.is_power_of_two()
            && databases[0].flags == INTEGER_KEYS
            && databases[1].flags == 0;
        if !is_ours {
            return Err(damaged("one of its first pages is damaged"));
        }
        Ok(Self {
            page_bytes,
            databases,
            last_page: u64_at(body, LAST_PAGE_AT),
            transaction: u64_at(body, LAST_PAGE_AT + 8),
        })
    }
}

fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    match file.read_exact_at(bytes, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(damaged("it was cut off"))
        }
        read => read,
    }
}

struct Walk<'a> {
    file: &'a File,
    page_bytes: usize,
    pages: u64,
    /// Bits of the pages that were met, by 64: none is used twice.
    seen: BTreeMap<u64, u64>,
}

/// The keys that may be below a page: from the first on, and before the second.
type Bounds<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

impl Walk<'_> {
    fn see(&mut self, page: u64) -> io::Result<()> {
        if page >= self.pages {
            return Err(damaged(format!("page {page} is beyond the end")));
        }
        let seen = self.seen.entry(page / 64).or_default();
        let bit = 1 << (page % 64);
        if *seen & bit != 0 {
            return Err(damaged(format!("page {page} is used twice")));
        }
        *seen |= bit;
        Ok(())
    }

    fn database(&mut self, database: &Database) -> io::Result<()> {
        if database.root == NONE {
            return match database.depth {
                0 => Ok(()),
                _ => Err(damaged("an empty database is deep")),
            };
        }
        if !(1..=DEPTH_MAX).contains(&database.depth) {
            return Err(damaged(format!("a database is {} deep", database.depth)));
        }
        self.page(database, database.root, database.depth, (None, None))
    }

    /// A page and what is below it; `height` is 1 for leaves.
    fn page(
        &mut self,
        database: &Database,
        number: u64,
        height: u16,
        bounds: Bounds<'_>,
    ) -> io::Result<()> {
        self.see(number)?;
        let mut bytes = vec![0; self.page_bytes];
        let at = number * self.page_bytes as u64;
        read_at(self.file, &mut bytes, at)?;
        let wrong = |what: &str| damaged(format!("page {number} {what}"));
        let kind = if height == 1 { LEAF } else { BRANCH };
        if u64_at(&bytes, 0) != number || u16_at(&bytes, 10) != kind {
            return Err(wrong("is another one"));
        }
        let lower = usize::from(u16_at(&bytes, 12));
        let upper = usize::from(u16_at(&bytes, 14));
        if lower < HEADER_BYTES
            || !lower.is_multiple_of(2)
            || lower > upper
            || upper > self.page_bytes
        {
            return Err(wrong("has wrong bounds"));
        }
        let count = (lower - HEADER_BYTES) / 2;
        if kind == BRANCH && count < 2 {
            return Err(wrong("has too few children"));
        }
        let nodes = (0..count).map(|i| {
            let offset = usize::from(u16_at(&bytes, HEADER_BYTES + 2 * i));
            Node::decode(&bytes, offset, upper, kind)
        });
        let nodes: Option<Vec<_>> = nodes.collect();
        let nodes = nodes.ok_or_else(|| wrong("has a wrong node"))?;
        // The first key of a branch is not used.
        let keys = nodes
            .iter()
            .skip(usize::from(kind == BRANCH))
            .map(|node| node.key);
        if !is_ordered(database, keys, bounds) {
            return Err(wrong("has keys out of order"));
        }
        for (i, node) in nodes.iter().enumerate() {
            if kind == LEAF {
                self.leaf_node(database, number, node)?;
                continue;
            }
            let from = if i == 0 { bounds.0 } else { Some(node.key) };
            let to = nodes.get(i + 1).map(|next| next.key).or(bounds.1);
            self.page(database, node.child(), height - 1, (from, to))?;
        }
        Ok(())
    }

    fn leaf_node(&mut self, database: &Database, page: u64, node: &Node<'_>) -> io::Result<()> {
        let wrong = || damaged(format!("page {page} has a wrong value"));
        let is_free_list = database.flags & INTEGER_KEYS != 0;
        match node.flags {
            0 if is_free_list => self.free_list(node.data),
            0 => Ok(()),
            BIG => {
                let first = u64_at(node.data, 0);
                self.overflow(first, node.data_bytes)?;
                if !is_free_list {
                    return Ok(());
                }
                let mut list = vec![0; node.data_bytes];
                let at = first * self.page_bytes as u64 + HEADER_BYTES as u64;
                read_at(self.file, &mut list, at)?;
                self.free_list(&list)
            }
            // Those in the main database are plain.
            SUBDATABASE if !is_free_list && node.data.len() == DATABASE_BYTES => {
                let inner = Database::decode(node.data);
                match inner.flags {
                    0 => self.database(&inner),
                    _ => Err(wrong()),
                }
            }
            _ => Err(wrong()),
        }
    }

    /// The pages of a long value.
    fn overflow(&mut self, first: u64, data_bytes: usize) -> io::Result<()> {
        let mut header = [0; HEADER_BYTES];
        let count = (HEADER_BYTES + data_bytes).div_ceil(self.page_bytes) as u64;
        for page in first..first.saturating_add(count) {
            self.see(page)?;
        }
        read_at(self.file, &mut header, first * self.page_bytes as u64)?;
        let is_right = u64_at(&header, 0) == first
            && u16_at(&header, 10) == OVERFLOW
            && u64::from(u32_at(&header, 12)) == count;
        match is_right {
            true => Ok(()),
            false => Err(damaged(format!("page {first} is no long value"))),
        }
    }

    /// Pages that a commit let go: how many, and their numbers, descending. One that is also in use would
    /// be overwritten.
    fn free_list(&mut self, list: &[u8]) -> io::Result<()> {
        let mut numbers = list.chunks_exact(8).map(|number| u64_at(number, 0));
        let count = numbers.next();
        if !list.len().is_multiple_of(8) || count != Some(numbers.len() as u64) {
            return Err(damaged("a list of free pages has a wrong length"));
        }
        let mut last = u64::MAX;
        for page in numbers {
            if page >= last {
                return Err(damaged("a list of free pages is out of order"));
            }
            last = page;
            self.see(page)?;
        }
        Ok(())
    }
}

/// A key of a page, with what belongs to it.
struct Node<'a> {
    low: u64,
    flags: u16,
    key: &'a [u8],
    /// What of the data is in the page.
    data: &'a [u8],
    data_bytes: usize,
}

impl<'a> Node<'a> {
    /// `None` unless all of it is between `upper` and the end of the page.
    fn decode(page: &'a [u8], offset: usize, upper: usize, kind: u16) -> Option<Self> {
        if offset < upper || !offset.is_multiple_of(2) || offset + NODE_BYTES > page.len() {
            return None;
        }
        let low = u32_at(page, offset);
        let flags = u16_at(page, offset + 4);
        let key_at = offset + NODE_BYTES;
        let data_at = key_at + usize::from(u16_at(page, offset + 6));
        let data_bytes = low as usize;
        let data_end = match kind {
            BRANCH => data_at,
            _ if flags & BIG != 0 => data_at + 8,
            _ => data_at + data_bytes,
        };
        Some(Self {
            low: u64::from(low),
            flags,
            key: page.get(key_at..data_at)?,
            data: page.get(data_at..data_end)?,
            data_bytes,
        })
    }

    /// The page below a node of a branch.
    fn child(&self) -> u64 {
        self.low | u64::from(self.flags) << 32
    }
}

fn is_ordered<'a>(
    database: &Database,
    keys: impl Iterator<Item = &'a [u8]>,
    (from, to): Bounds<'a>,
) -> bool {
    let numbers = database.flags & INTEGER_KEYS != 0;
    let is_less = |a: &[u8], b: &[u8]| match numbers {
        true => a.len() == 8 && b.len() == 8 && u64_at(a, 0) < u64_at(b, 0),
        false => a < b,
    };
    let mut last = None;
    for key in keys {
        let after_last = last.is_none_or(|last| is_less(last, key));
        let in_bounds =
            from.is_none_or(|from| !is_less(key, from)) && to.is_none_or(|to| is_less(key, to));
        if !after_last || !in_bounds || (numbers && key.len() != 8) {
            return false;
        }
        last = Some(key);
    }
    true
}

/// LMDB's numbers are the machine's own.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes[at..at + 4].try_into();
    u32::from_ne_bytes(field.expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes[at..at + 8].try_into();
    u64::from_ne_bytes(field.expect("eight bytes"))
}

#[cfg(test)]
mod tests;
