//! Where a Service of a scenario is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::objects::Family;

/// Names and addresses of a Service: all follow from two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    /// Number of the group of scenarios, 1 to 250.
    pub(crate) group: u8,
    /// Number of the Service in it, 0 or 1.
    pub(crate) service: u8,
}

impl At {
    pub(crate) fn namespace(&self) -> String {
        format!("s{}", self.group)
    }

    pub(crate) fn name(&self) -> String {
        format!("web{}", self.service)
    }

    pub(crate) fn cluster_ip(&self, family: Family) -> IpAddr {
        self.address([10, 96], 0x96, family)
    }

    pub(crate) fn external(&self, family: Family) -> IpAddr {
        self.address([198, 51], 0x51, family)
    }

    pub(crate) fn load_balancer(&self, family: Family) -> IpAddr {
        self.address([203, 0], 0x113, family)
    }

    /// NodePort of the port with this index.
    pub(crate) fn node_port(&self, index: usize) -> u16 {
        30_000 + u16::from(self.group) * 8 + u16::from(self.service) * 4 + u16::try_from(index).expect("few ports")
    }

    pub(crate) fn both(&self, of: fn(&Self, Family) -> IpAddr) -> [IpAddr; 2] {
        Family::BOTH.map(|family| of(self, family))
    }

    fn address(&self, [first, second]: [u8; 2], network: u16, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(first, second, 100 + self.service, self.group).into(),
            Family::V6 => {
                Ipv6Addr::new(0x2001, 0xdb8, network, u16::from(self.service), 0, 0, 0, u16::from(self.group)).into()
            }
        }
    }
}
