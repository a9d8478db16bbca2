//! The way out for a native server that was granted addresses: it has a network of its own, in which we listen at those addresses, and
//! pass on what comes. Nothing else is reachable there. Names lead to addresses of our own, by a `/etc/hosts` of its own.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::config::Endpoint;

/// Addresses of one server; the child hands over its sockets all at once.
const ENDPOINTS: usize = 64;
/// Connections of one server to one of them at once.
const CONNECTIONS: usize = 64;
/// How long one direction of a connection may go on alone.
const HALF_OPEN: Duration = Duration::from_mins(1);
/// Before another connection is taken after one that could not be.
const AGAIN: Duration = Duration::from_millis(100);
/// How long connecting to a host may take.
const CONNECT: Duration = Duration::from_secs(30);
const BACKLOG: i32 = 64;
/// How often, and with which pauses, a new address is tried out.
const ATTEMPTS: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(1);
/// Where names lead to, the first of many.
const FIRST: [u8; 4] = [127, 66, 0, 1];

/// Ready for a server that is about to start.
pub(super) struct Prepared {
    granted: Vec<Endpoint>,
    addresses: Vec<SocketAddr>,
    hosts: PathBuf,
    ours: OwnedFd,
    theirs: OwnedFd,
}

/// What the child does inside of its network.
pub(super) struct Inside {
    addresses: Vec<SocketAddr>,
    hosts: CString,
    parent: OwnedFd,
}

/// Passes connections on until it is dropped.
pub(crate) struct Forwarder {
    _tasks: JoinSet<()>,
}

impl Prepared {
    /// Keeps what it needs in `folder`.
    pub(super) fn new(granted: &[Endpoint], folder: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("its network can't be made ready: {error}");
        let literals: HashSet<IpAddr> = granted.iter().filter_map(|endpoint| endpoint.host.parse().ok()).collect();
        let mut free =
            (u32::from_be_bytes(FIRST)..).map(Ipv4Addr::from).filter(|free| !literals.contains(&(*free).into()));
        let mut names: HashMap<&str, IpAddr> = HashMap::from([("localhost", Ipv4Addr::LOCALHOST.into())]);
        let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
        let mut listening: Vec<(SocketAddr, Endpoint)> = Vec::new();
        for endpoint in granted {
            let address = match endpoint.host.parse::<IpAddr>() {
                Ok(address) => address,
                Err(_) => *names.entry(&endpoint.host).or_insert_with_key(|name| {
                    let address = free.next().unwrap_or(Ipv4Addr::LOCALHOST);
                    text.extend([&address.to_string(), " ", name, "\n"]);
                    address.into()
                }),
            };
            let address = SocketAddr::new(address, endpoint.port);
            // `localhost` and its address are the same.
            if listening.iter().all(|(known, _)| *known != address) {
                listening.push((address, endpoint.clone()));
            }
        }
        if listening.len() > ENDPOINTS {
            return Err(format!("its `network` has {} addresses, and may have {ENDPOINTS}", listening.len()));
        }
        let (addresses, granted) = listening.into_iter().unzip();
        let hosts = folder.join(".hosts");
        std::fs::write(&hosts, text).map_err(failed)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|error| failed(error.into()))?;
        Ok(Self { granted, addresses, hosts, ours, theirs })
    }

    /// The file that is the server's `/etc/hosts`.
    pub(super) fn hosts(&self) -> &Path {
        &self.hosts
    }

    pub(super) fn inside(&self) -> Result<Inside, String> {
        let failed = |error: &dyn std::fmt::Display| format!("its network can't be made ready: {error}");
        Ok(Inside {
            addresses: self.addresses.clone(),
            hosts: CString::new(self.hosts.as_os_str().as_bytes()).map_err(|error| failed(&error))?,
            parent: self.theirs.try_clone().map_err(|error| failed(&error))?,
        })
    }

    /// Passes on what is connected to in the server's network, which has been started.
    pub(super) fn forward(self) -> Result<Forwarder, String> {
        let failed = |error: std::io::Error| format!("its network can't be reached: {error}");
        let mut tasks = JoinSet::new();
        for endpoint in self.granted {
            let listener = receive(&self.ours).map_err(failed)?;
            let listener = std::net::TcpListener::from(listener);
            listener.set_nonblocking(true).map_err(failed)?;
            let listener = TcpListener::from_std(listener).map_err(failed)?;
            tasks.spawn(accept(listener, endpoint));
        }
        Ok(Forwarder { _tasks: tasks })
    }
}

async fn accept(listener: TcpListener, endpoint: Endpoint) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&free).acquire_owned().await else { return };
        let from = match listener.accept().await {
            Ok((from, _)) => from,
            Err(error) => {
                // This process may have too many files open for a while.
                tracing::warn!(%endpoint, %error, "a connection of a sandboxed server could not be taken");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let endpoint = endpoint.clone();
        connections.spawn(async move {
            let _place = place;
            let to = tokio::time::timeout(CONNECT, TcpStream::connect((endpoint.host.as_str(), endpoint.port))).await;
            match to {
                Ok(Ok(to)) => forward(from, to).await,
                Ok(Err(error)) => tracing::warn!(%endpoint, %error, "a sandboxed server could not be connected"),
                Err(_) => tracing::warn!(%endpoint, "a sandboxed server could not be connected in time"),
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Until both have closed, or one has, and the other takes too long.
async fn forward(mut server: TcpStream, mut host: TcpStream) {
    let ((mut from_server, mut to_server), (mut from_host, mut to_host)) = (server.split(), host.split());
    let there = async {
        let _ = tokio::io::copy(&mut from_server, &mut to_host).await;
        let _ = to_host.shutdown().await;
    };
    let back = async {
        let _ = tokio::io::copy(&mut from_host, &mut to_server).await;
        let _ = to_server.shutdown().await;
    };
    let (mut there, mut back) = (std::pin::pin!(there), std::pin::pin!(back));
    tokio::select! {
        () = &mut there => drop(tokio::time::timeout(HALF_OPEN, back).await),
        () = &mut back => drop(tokio::time::timeout(HALF_OPEN, there).await),
    }
}

/// A listening socket from the child.
fn receive(from: &OwnedFd) -> std::io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let sockets = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    sockets.ok_or_else(|| std::io::Error::other("it did not hand over its sockets"))
}

impl Inside {
    /// Runs in the child; see there for what it may not do.
    pub(super) fn set_up(&mut self) -> rustix::io::Result<()> {
        let control = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        link_up(&control)?;
        rustix::mount::mount_bind(self.hosts.as_c_str(), c"/etc/hosts")?;
        for (index, address) in self.addresses.iter().enumerate() {
            if !address.ip().is_loopback() {
                add_address(&control, address.ip(), index)?;
            }
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            bind(&socket, address)?;
            rustix::net::listen(&socket, BACKLOG)?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut message = SendAncillaryBuffer::new(&mut space);
            let sockets = [socket.as_fd()];
            message.push(SendAncillaryMessage::ScmRights(&sockets));
            rustix::net::sendmsg(&self.parent, &[IoSlice::new(&[0])], &mut message, SendFlags::empty())?;
        }
        Ok(())
    }
}

/// An address of version 6 can be used only after the kernel has made it sure that nobody else has it, a moment after it was added.
fn bind(socket: &OwnedFd, address: &SocketAddr) -> rustix::io::Result<()> {
    for _ in 0..ATTEMPTS {
        match rustix::net::bind(socket, address) {
            Err(rustix::io::Errno::ADDRNOTAVAIL) => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
    rustix::net::bind(socket, address)
}

/// As wide as the requests have them.
#[allow(clippy::cast_possible_truncation, reason = "both are small")]
const UP: libc::c_short = libc::IFF_UP as libc::c_short;
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both are small")]
const FAMILY: libc::sa_family_t = libc::AF_INET as libc::sa_family_t;

/// A request about a network interface, as the kernel has it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    value: InterfaceValue,
}

#[repr(C)]
union InterfaceValue {
    flags: libc::c_short,
    address: libc::sockaddr_in,
    room: [u8; 24],
}

/// The same for an address of version 6.
#[repr(C)]
struct InterfaceRequest6 {
    address: [u8; 16],
    prefix: u32,
    interface: libc::c_int,
}

fn request<T>(control: &OwnedFd, number: libc::Ioctl, request: &T) -> rustix::io::Result<()> {
    // SAFETY: the kernel reads a request of this kind from memory that has it.
    #[allow(unsafe_code, reason = "a system call")]
    let done = unsafe { libc::ioctl(control.as_raw_fd(), number, std::ptr::from_ref(request)) };
    if done == 0 {
        Ok(())
    } else {
        Err(rustix::io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO))
    }
}

fn link_up(control: &OwnedFd) -> rustix::io::Result<()> {
    let mut name = [0; 16];
    name[..2].copy_from_slice(b"lo");
    let mut value = InterfaceValue { room: [0; 24] };
    value.flags = UP;
    request(control, libc::SIOCSIFFLAGS, &InterfaceRequest { name, value })
}

/// Gives the loopback interface an address of the world outside.
fn add_address(control: &OwnedFd, address: IpAddr, index: usize) -> rustix::io::Result<()> {
    match address {
        IpAddr::V4(address) => {
            let mut name = *b"lo:00000\0\0\0\0\0\0\0\0";
            let mut rest = index + 1;
            for digit in name[3..8].iter_mut().rev() {
                *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
                rest /= 10;
            }
            let address = libc::sockaddr_in {
                sin_family: FAMILY,
                sin_port: 0,
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
                sin_zero: [0; 8],
            };
            let mut value = InterfaceValue { room: [0; 24] };
            value.address = address;
            request(control, libc::SIOCSIFADDR, &InterfaceRequest { name, value })
        }
        IpAddr::V6(address) => {
            let control =
                rustix::net::socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            // The loopback interface is the first.
            request(
                &control,
                libc::SIOCSIFADDR,
                &InterfaceRequest6 { address: address.octets(), prefix: 128, interface: 1 },
            )
        }
    }
}
