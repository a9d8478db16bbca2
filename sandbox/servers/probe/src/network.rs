//! Tools that attempt to use the network, with std's sockets; `sockets.rs` has the same for components.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

use serde_json::json;

use crate::Tool;

pub(crate) const TOOLS: &[Tool] = &[
    // Sends a line, and answers with the one that comes back.
    ("tcp_connect", |arguments| {
        let mut stream = TcpStream::connect(arguments.text("address")?)?;
        stream.write_all(b"hello\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line.trim_end().into())
    }),
    ("udp_send", |arguments| {
        UdpSocket::bind("0.0.0.0:0")?.send_to(b"hello\n", arguments.text("address")?)?;
        Ok("sent".into())
    }),
    ("listen", |arguments| {
        TcpListener::bind(arguments.text("address")?)?;
        Ok("listening".into())
    }),
    ("resolve", |arguments| {
        let found = (arguments.text("name")?, 0).to_socket_addrs()?;
        Ok(json!(found.map(|address| address.ip().to_string()).collect::<Vec<_>>()).to_string())
    }),
];
