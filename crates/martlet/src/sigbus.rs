//! Last words when a disk fails under a memory map.
//!
//! LMDB reads its files through memory maps, so a page that the disk cannot give is no error that
//! anybody could handle: the kernel ends the process by SIGBUS, and without this module nobody would
//! learn why. The signal still ends it: what the thread was about to read does not exist.

use std::mem::MaybeUninit;
use std::{io, ptr};

const BEFORE: &[u8] = b"martlet: SIGBUS";
const AT: &[u8] = b" at address 0x";
const AFTER: &[u8] =
    b": a disk under a data directory could not be read; the kernel's log says which\n";

/// An address has at most sixteen digits.
const LINE_BYTES_MAX: usize = BEFORE.len() + AT.len() + 16 + AFTER.len();

/// From now on a SIGBUS says why before it ends the process.
#[expect(unsafe_code, reason = "nobody wraps handlers that get the address")]
pub(crate) fn explain() -> io::Result<()> {
    // The type is that of the C interface, which takes one- and three-argument handlers in one field.
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = last_words;
    // SAFETY: an all-zero `sigaction` is a valid one (no flags, an empty mask, the default action), and
    // those fields that matter are set before it is used.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    // Once: the default action is in place again before the handler runs. On the thread's signal stack, if
    // it has one, as the runtime's own handler does.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_ONSTACK;
    // SAFETY: `action` is initialised and outlives the call; the handler has the signature that
    // SA_SIGINFO asks for and calls only what may be called in a handler. No old action is asked for.
    match unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs between any two instructions of any thread: no memory, no locks, no panics; `write` and `raise`
/// are async-signal-safe by POSIX.
#[expect(unsafe_code, reason = "a signal handler talks to the kernel only")]
extern "C" fn last_words(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid `siginfo_t`. Its `si_addr` is set if the signal came
    // from a fault, which a positive code says; else it is not asked for.
    let address = unsafe { ((*info).si_code > 0).then(|| (*info).si_addr() as usize) };
    let mut line = [0; LINE_BYTES_MAX];
    let len = compose(address, &mut line);
    // SAFETY: the first `len` bytes of `line` are initialised and live until the call returns. What it
    // returns does not matter any more.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), len) };
    // SAFETY: it takes no memory of ours. The signal is blocked while we handle it, so it strikes when we
    // return, by the default action; so it does if the faulting instruction runs again.
    unsafe { libc::raise(signal) };
}

/// Writes the line and tells how long it is.
fn compose(address: Option<usize>, line: &mut [u8; LINE_BYTES_MAX]) -> usize {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut len = 0;
    let mut put = |byte: u8| {
        if let Some(place) = line.get_mut(len) {
            *place = byte;
            len += 1;
        }
    };
    BEFORE.iter().for_each(|byte| put(*byte));
    if let Some(address) = address {
        AT.iter().for_each(|byte| put(*byte));
        let digits = (usize::BITS - address.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            put(DIGITS[(address >> (4 * digit)) & 15]);
        }
    }
    AFTER.iter().for_each(|byte| put(*byte));
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: Option<usize>, start: &str) {
        let mut line = [0; LINE_BYTES_MAX];
        let len = compose(address, &mut line);
        let line = std::str::from_utf8(&line[..len]).unwrap();
        assert!(line.starts_with(start), "{line}");
        assert!(line.ends_with("says which\n"), "{line}");
    }

    #[test]
    fn the_line_has_the_address_if_there_is_one() {
        check(None, "martlet: SIGBUS: a disk");
        check(Some(0), "martlet: SIGBUS at address 0x0: a disk");
        check(
            Some(0x007f_3a10),
            "martlet: SIGBUS at address 0x7f3a10: a disk",
        );
        check(
            Some(usize::MAX),
            "martlet: SIGBUS at address 0xffffffffffffffff: a disk",
        );
    }
}
