//! Reading records: a reader of one partition, and the scan that the cursors of several partitions share.

mod block;
pub(crate) mod cursor;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod scan;
