//! A network namespace without a name.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Lives as long as this, or a process or socket in it.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// A new one with a device that has an address in a network of 254, and the reading and writing end of
    /// that device, which never blocks.
    pub(super) fn with_device(address: Ipv4Addr, packet_bytes_max: usize) -> Result<(Self, File)> {
        apart(move || {
            leave_network().context("making a network namespace")?;
            let file = File::open("/proc/thread-self/ns/net")?;
            let device = open_device().context("making a TUN device")?;
            run_ip(&format!(
                "link set lo up\n\
                 address add {address}/24 dev {DEVICE}\n\
                 link set {DEVICE} up mtu {packet_bytes_max}\n"
            ))?;
            Ok((Self { file }, device))
        })
    }

    /// Does something within, as starting a process or making a socket, which then stay there.
    pub fn within<T: Send>(&self, what: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        apart(|| {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            what()
        })
    }

    pub fn connect(&self, address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
        self.within(|| TcpStream::connect_timeout(&address, patience))
    }
}

/// On a thread of its own, so that the caller stays in its namespace.
fn apart<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let done = scope.spawn(what).join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves this thread into a new namespace.
#[expect(unsafe_code, reason = "it could unshare more than the network")]
fn leave_network() -> rustix::io::Result<()> {
    // SAFETY: this thread shares its files with the others as before.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
}

/// The same in every namespace.
const DEVICE: &str = "martlet";

fn open_device() -> Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open("/dev/net/tun")?;
    make_device(&file)?;
    Ok(file)
}

/// `struct ifreq` as `TUNSETIFF` reads it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    padding: [u8; 22],
}

#[expect(unsafe_code, reason = "nobody wraps this ioctl")]
fn make_device(tun: &File) -> rustix::io::Result<()> {
    const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
    /// `IFF_TUN | IFF_NO_PI`: packets of IP and nothing before them.
    const FLAGS: u16 = 0x0001 | 0x1000;
    let mut request = Request {
        name: [0; 16],
        flags: FLAGS,
        padding: [0; 22],
    };
    request.name[..DEVICE.len()].copy_from_slice(DEVICE.as_bytes());
    // SAFETY: the kernel reads one `struct ifreq` at the pointer, which is what `Setter` passes, and writes
    // the name back into it.
    unsafe { ioctl(tun, Setter::<TUNSETIFF, Request>::new(request)) }
}

/// Runs lines of `ip`.
fn run_ip(lines: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("starting ip")?;
    let mut stdin = child.stdin.take().context("stdin was piped")?;
    stdin.write_all(lines.as_bytes())?;
    drop(stdin);
    let status = child.wait()?;
    ensure!(status.success(), "ip ended with {status}");
    Ok(())
}
