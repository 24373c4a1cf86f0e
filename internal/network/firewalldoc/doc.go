// Package firewalldoc holds docs/firewall and the kernel together: it has tests
// only. Every page there is a script. In their order, the test
//
//   - runs what stands in a ```console block, the isle commands on a network
//     manager with a kernel of its own;
//   - sends a packet for each row of a table "from | to | gets | decided by", and
//     follows it through the rules by nftables' trace;
//   - lists the rules between "<!-- written: … -->" and "<!-- end -->";
//   - looks for the [chains], @sets and "comments" of rules that a picture (a
//     ```text block) names.
//
// Then it compares the page with what is checked in. -update writes the listings
// and the last two columns of the tables; all else is written by people.
//
// Traps. Ids are random: bridges, links and MAC addresses are shown under names
// that are made of those of networks and containers (names_test.go).
package firewalldoc
