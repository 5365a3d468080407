//! The map, as a row of the control shard: it is another crate's, and [`crate::check`] reads it.

use map::Map;

use crate::Error;

/// Reads the map's row.
pub(crate) fn decode(row: &[u8]) -> Result<Map, Error> {
    Map::decode(row).map_err(|error| Error::Damaged(error.to_string()))
}
