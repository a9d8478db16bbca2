//! The tools of `network.rs` in a component, with the sockets of WASI preview 2.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::json;
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::{IpAddress, resolve_addresses};
use wasip2::sockets::network::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, Network,
};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp::OutgoingDatagram;
use wasip2::sockets::udp_create_socket::create_udp_socket;

use crate::{Arguments, Outcome, Tool};

pub(crate) const TOOLS: &[Tool] =
    &[("tcp_connect", tcp_connect), ("udp_send", udp_send), ("listen", listen), ("resolve", resolve)];

fn tcp_connect(arguments: Arguments<'_>) -> Outcome {
    let (family, address) = address(arguments.text("address")?)?;
    let socket = create_tcp_socket(family)?;
    socket.start_connect(&instance_network(), address)?;
    socket.subscribe().block();
    let (input, output) = socket.finish_connect()?;
    output.blocking_write_and_flush(b"hello\n")?;
    let mut line = Vec::new();
    while !line.contains(&b'\n') {
        match input.blocking_read(1024) {
            Ok(more) => line.extend(more),
            Err(_) => break,
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end().into())
}

fn udp_send(arguments: Arguments<'_>) -> Outcome {
    let (family, address) = address(arguments.text("address")?)?;
    let any = match family {
        IpAddressFamily::Ipv4 => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddressFamily::Ipv6 => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = create_udp_socket(family)?;
    socket.start_bind(&instance_network(), convert(any))?;
    socket.subscribe().block();
    socket.finish_bind()?;
    let (_incoming, outgoing) = socket.stream(None)?;
    outgoing.subscribe().block();
    outgoing.check_send()?;
    let sent = outgoing.send(&[OutgoingDatagram { data: b"hello\n".to_vec(), remote_address: Some(address) }])?;
    if sent == 1 { Ok("sent".into()) } else { Err("not sent".into()) }
}

fn listen(arguments: Arguments<'_>) -> Outcome {
    fn attempt(socket: &TcpSocket, network: &Network, address: IpSocketAddress) -> Result<(), ErrorCode> {
        socket.start_bind(network, address)?;
        socket.subscribe().block();
        socket.finish_bind()?;
        socket.start_listen()?;
        socket.subscribe().block();
        socket.finish_listen()
    }
    let (family, address) = address(arguments.text("address")?)?;
    attempt(&create_tcp_socket(family)?, &instance_network(), address)?;
    Ok("listening".into())
}

fn resolve(arguments: Arguments<'_>) -> Outcome {
    let stream = resolve_addresses(&instance_network(), arguments.text("name")?)?;
    let mut found = Vec::new();
    loop {
        stream.subscribe().block();
        match stream.resolve_next_address()? {
            Some(IpAddress::Ipv4((a, b, c, d))) => found.push(Ipv4Addr::new(a, b, c, d).to_string()),
            Some(IpAddress::Ipv6((a, b, c, d, e, f, g, h))) => {
                found.push(Ipv6Addr::new(a, b, c, d, e, f, g, h).to_string());
            }
            None => return Ok(json!(found).to_string()),
        }
    }
}

fn address(text: &str) -> Result<(IpAddressFamily, IpSocketAddress), std::net::AddrParseError> {
    let address: SocketAddr = text.parse()?;
    let family = if address.is_ipv4() { IpAddressFamily::Ipv4 } else { IpAddressFamily::Ipv6 };
    Ok((family, convert(address)))
}

fn convert(address: SocketAddr) -> IpSocketAddress {
    match address {
        SocketAddr::V4(address) => {
            IpSocketAddress::Ipv4(Ipv4SocketAddress { port: address.port(), address: address.ip().octets().into() })
        }
        SocketAddr::V6(address) => IpSocketAddress::Ipv6(Ipv6SocketAddress {
            port: address.port(),
            flow_info: address.flowinfo(),
            address: address.ip().segments().into(),
            scope_id: address.scope_id(),
        }),
    }
}
