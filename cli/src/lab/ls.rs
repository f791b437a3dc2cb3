//! `lab ls`.

use serde::Serialize;

use super::{
    host::Host,
    layout::Layout,
    state::{MAIN_BRIDGE, State},
};
use crate::{args::Format, command::show, failure::Failure, out};

#[derive(Debug, Serialize)]
struct Row {
    lab: String,
    host: String,
    /// As it began: `node ls` tells what it is now.
    role: String,
    address: String,
    /// up, daemon down, or off
    state: String,
    /// 0: with all that are not partitioned off. Hosts of one number reach each other.
    partition: u32,
    socket: String,
    data: String,
}

pub(super) fn ls(labs: &[Layout], format: &Format) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for layout in labs {
        let state = match State::load(layout) {
            Ok(state) => state,
            // The others are still worth showing.
            Err(f) => {
                failures.push(f);
                continue;
            }
        };
        for (name, port) in &state.hosts {
            rows.push(Row {
                lab: layout.lab().to_string(),
                host: name.to_string(),
                role: name.role().to_string(),
                address: name.v4().to_string(),
                state: Host { layout, name: *name }.condition()?.word().to_owned(),
                partition: port.bridge,
                socket: layout.socket(*name).display().to_string(),
                data: layout.data(*name).display().to_string(),
            });
        }
    }
    if !rows.is_empty() || failures.is_empty() {
        listed(&rows, format)?;
    }
    super::told(failures)
}

fn listed(rows: &[Row], format: &Format) -> Result<(), Failure> {
    show::rows(format.format.as_ref(), "ID", rows, || {
        let cells = |row: &Row| {
            let partition = if row.partition == MAIN_BRIDGE { String::new() } else { row.partition.to_string() };
            let (lab, host, role, address) = (row.lab.clone(), row.host.clone(), row.role.clone(), row.address.clone());
            vec![lab, host, role, address, row.state.clone(), partition, row.socket.clone()]
        };
        let header = ["LAB", "HOST", "ROLE", "ADDRESS", "STATE", "PARTITION", "SOCKET"];
        out::table(&header, rows.iter().map(cells).collect())
    })
}
