// Package lan is a LAN of namespaces around a real isled: what the drivers that put
// containers on the LAN promise is asked of those who would notice, and of the wire.
//
//	 near: 10.88.0.2, fd88::2       router: 10.88.0.254, fd88::fe; dnsmasq: DHCP, RA, DHCPv6
//	┌────────────┐                 ┌────────────┐
//	│       eth0 │                 │ eth0       │ eth0.50: VLAN 50, 10.89.0.254
//	└─────────┬──┘                 └──┬─────────┘
//	┌─────────┴───────────────────────┴─────────┐
//	│ p-near          switch           p-router │ a bridge
//	│                 p-lan0                    │ ◀── the witness: every frame of the host and its containers
//	└───────────────────┬───────────────────────┘
//	┌───────────────────┴───────────────────────┐
//	│                  lan0                     │ 10.88.0.1, fd88::1
//	│  the host: isled and its containers       │
//	└───────────────────────────────────────────┘
package lan
