// Package pulse finds out whether tunnels to other hosts carry, and how large frames: it
// sends frames by the tunnels, as the data goes, because a probe of another kind sees
// neither a way that loses large packets in silence nor a network card that computes wrong
// checksums inside of tunnels.
//
//	Set ──► ways ──► peers: what is known of each       peer.go, pure
//	          │
//	        Wire     one for each way, of AF_PACKET     package kernel/rawlink
//
// Each host tries the way from itself to the others with frames of full size that must not
// be cut, and gets small answers. What it finds it says in all that it sends, so both ends
// know of both directions. An answer is never larger than what was asked, and there are
// few: nobody can be flooded by way of us.
//
// What it costs: a host asks at most Rate times a second, whatever there is, and answers
// as often as it is asked.
package pulse
