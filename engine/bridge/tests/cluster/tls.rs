//! Encrypted connections, certificates of clients, and keys.

use crate::ALONE;
use crate::command::{Machine, publish};
use crate::servers::Servers;
use std::path::Path;
use std::process::Command;
use std::sync::PoisonError;

/// The example of a user's key in the servers' documentation: nobody's key.
const KEY: [&str; 2] = [
    "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4",
    "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY",
];

/// Makes an authority, and certificates of it for a server and a client. False if there is no program for it.
fn certificates(at: &Path) -> bool {
    let run = |arguments: &str| {
        let made = Command::new("openssl").args(arguments.split(' ')).current_dir(at).output();
        made.map(|made| assert!(made.status.success(), "{arguments}: {}", String::from_utf8_lossy(&made.stderr)))
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    if run(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=ca -days 2")).is_err() {
        return false;
    }
    std::fs::write(at.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    for name in ["server", "client"] {
        run(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}")).unwrap();
        let sign = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names";
        run(&format!("x509 -req -in {name}.csr -out {name}.pem {sign}")).unwrap();
    }
    true
}

#[test]
fn a_connection_is_encrypted_and_a_client_is_known_by_its_certificate_and_its_key() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    if !certificates(dir.path()) {
        println!("encrypted connections: SKIPPED, there is no openssl");
        return;
    }
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (ca, certificate, key) = (at("ca.pem"), at("client.pem"), at("client.key"));
    let more = format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {ca:?}, verify: true }}\n\
         authorization {{ users: [{{ nkey: {} }}] }}\n",
        at("server.pem"),
        at("server.key"),
        KEY[0]
    );
    let Some(servers) = Servers::start_with(&more) else { return };
    let outward = "[[outward]]\nname = 'nats'\ntopic = 'orders'\n";
    let tls = |more: &str| format!("prefix = 'tls'\nkey = '{}'\ntls = {{ {more} }}", KEY[1]);
    let known = format!("roots = '{ca}', certificate = '{certificate}', key = '{key}'");
    let machine = Machine::new(&servers, &tls(&known), outward);
    publish(&machine.journal(), 10);
    let copied = machine.call(&["run", "--drain"]);
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    assert!(machine.prints(&["verify"]).contains("partition 0: 5 equal, 0 not copied yet, 0 wrong"));
    // An authority that is not known, a client without a certificate, and one without the key.
    let no_key = format!("prefix = 'tls'\ntls = {{ {known} }}");
    for (of_cluster, expected) in
        [(tls(""), "with a key: "), (tls(&format!("roots = '{ca}'")), "with a key: "), (no_key, "without an account: ")]
    {
        let other = Machine::new(&servers, &of_cluster, outward);
        publish(&other.journal(), 2);
        let mut running = other.start(&["run"]);
        running.wait_for("tries again: stream tls-orders-0 at nats://127.0.0.1:");
        running.wait_for(expected);
        assert_eq!(running.terminate(), Some(0), "{}", running.said());
    }
}
