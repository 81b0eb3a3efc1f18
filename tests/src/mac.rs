//! Hardware addresses.

use std::{fmt, str::FromStr};

use anyhow::{Context as _, Error};

/// An Ethernet hardware address, in wire order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// What an ARP request says of the address that it looks for.
    pub const ZERO: Self = Self([0; 6]);

    /// The address of the lab whose last byte is `last`.
    pub const fn lab(last: u8) -> Self {
        Self([0x02, 0, 0, 0, 0, last])
    }

    /// Whether a group of stations is meant, broadcast included.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = text
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16))
            .collect::<Result<Vec<_>, _>>()
            .with_context(|| format!("{text} as a hardware address"))?;
        let bytes: [u8; 6] =
            bytes.try_into().map_err(|_| Error::msg(format!("{text} is not a hardware address")))?;
        Ok(Self(bytes))
    }
}
