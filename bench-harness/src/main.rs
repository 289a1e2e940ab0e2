fn main() { }
mod clock; mod environment; mod failure; mod latency; mod peers; mod pin; mod progress; mod quantity; mod scenario; mod statistics;
