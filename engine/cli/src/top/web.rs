//! `slipring top --web`: serves a page that shows a running engine in a browser.
//!
//! The page holds its script and its style, and loads nothing from elsewhere. It asks for `/metrics.json` once an interval
//! and writes what it gets as text only, so no name in an engine becomes markup; the policy in the page's header lets a
//! browser run no other script even if it did.

use super::socket::ask;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest, Sha256};
use slipring::text;
use std::convert::Infallible;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// The longest time that a client has to send its request, and then between two requests of one connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most connections at a time. Further clients wait to be accepted.
const CONNECTIONS: usize = 64;

/// How long no connection is accepted after the system refused one, for want of descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(100);

const PAGE: &str = include_str!("page.html");

/// What every request needs.
struct Site {
    /// The engine's socket.
    socket: PathBuf,
    page: Bytes,
    /// The policy of the page's header.
    policy: HeaderValue,
    /// True if only this machine reaches the address. Then a request must name this machine: a page of another site whose
    /// name was made to mean 127.0.0.1 could read the answers otherwise (DNS rebinding).
    is_local: bool,
}

/// Serves the page until the process ends.
///
/// # Errors
/// The address cannot be bound, or its line cannot be printed.
pub(super) fn serve(address: SocketAddr, socket: &Path, interval: f64) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|cause| format!("no page can be served at {address}: {cause}"))?;
        let address = listener.local_addr()?;
        super::print(&format!("http://{address}/ shows the engine at {}\n", text::line(socket.display())))?;
        if !address.ip().is_loopback() {
            eprintln!("slipring: other machines can reach {address}, and see all names and figures without a password");
        }
        let site = Arc::new(Site::new(socket, interval, address.ip()));
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let place = Arc::clone(&room).acquire_owned().await?;
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(BACK_OFF).await;
                continue;
            };
            let site = Arc::clone(&site);
            tokio::spawn(async move {
                let answer = service_fn(|request| answer(Arc::clone(&site), request));
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
                // A client that breaks off is no error of ours.
                let _ = http.serve_connection(TokioIo::new(stream), answer).await;
                drop(place);
            });
        }
    })
}

impl Site {
    fn new(socket: &Path, interval: f64, ip: IpAddr) -> Self {
        let page = PAGE.replace("{{interval}}", &interval.to_string());
        let hash = |tag: &str| {
            let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
            let inside = page.split_once(&open).and_then(|(_, rest)| rest.split_once(&close)).map_or("", |(it, _)| it);
            format!("'sha256-{}'", base64::Engine::encode(&base64::prelude::BASE64_STANDARD, Sha256::digest(inside)))
        };
        let policy = format!(
            "default-src 'none'; connect-src 'self'; script-src {}; style-src {}; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
            hash("script"),
            hash("style")
        );
        let policy = HeaderValue::try_from(policy).expect("a policy is ASCII");
        Self { socket: socket.to_owned(), page: Bytes::from(page), policy, is_local: ip.is_loopback() }
    }

    /// True if a request that names this host may be answered.
    fn serves(&self, host: Option<&HeaderValue>) -> bool {
        let Some(host) = host.and_then(|host| host.to_str().ok()) else { return !self.is_local };
        let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let name = host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name);
        let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        !self.is_local || name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

async fn answer(site: Arc<Site>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let plain = |status, text: &str| (status, "text/plain; charset=utf-8", Bytes::from(format!("{text}\n")));
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        _ if !site.serves(request.headers().get(header::HOST)) => {
            plain(StatusCode::FORBIDDEN, "this page is for this machine: open it as http://127.0.0.1 with the port")
        }
        (&Method::GET | &Method::HEAD, "/") => (StatusCode::OK, "text/html; charset=utf-8", site.page.clone()),
        (&Method::GET | &Method::HEAD, "/metrics.json") => of_engine(&site, "json\n", "application/json").await,
        (&Method::GET | &Method::HEAD, "/metrics") => {
            of_engine(&site, "prometheus\n", "text/plain; version=0.0.4").await
        }
        (&Method::GET | &Method::HEAD, _) => plain(StatusCode::NOT_FOUND, "there are /, /metrics.json and /metrics"),
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD"),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CONTENT_SECURITY_POLICY, site.policy.clone());
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    Ok(response)
}

/// Asks the engine. Its socket is read by a thread of its own, so a slow engine delays no other request.
async fn of_engine(site: &Arc<Site>, what: &'static str, kind: &'static str) -> (StatusCode, &'static str, Bytes) {
    let at = Arc::clone(site);
    let asked = tokio::task::spawn_blocking(move || ask(&at.socket, what)).await;
    let refused = |cause: String| {
        (StatusCode::BAD_GATEWAY, "text/plain; charset=utf-8", Bytes::from(text::line(cause).to_string()))
    };
    match asked {
        Ok(Ok(text)) => (StatusCode::OK, kind, Bytes::from(text)),
        Ok(Err(cause)) => refused(cause),
        Err(_) => refused("the request was broken off".to_owned()),
    }
}
