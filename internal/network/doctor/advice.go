package doctor

import (
	"fmt"
	"strings"

	"isle/internal/ruleset"
)

// traffic is what is to be let through: of a bridge of ours, or with a Port what
// comes to the host itself.
type traffic struct {
	link  string
	proto string
	port  string // or a row of them, "8000-8003"
}

// advice is how the owner of a rule lets our bridge's packets pass. They are
// decided about in our own table, so both directions are let through.
func advice(by ruleset.Place, rules *ruleset.Ruleset, t traffic) string {
	if by.Handle != 0 && hookOf(by, rules) == ruleset.Prerouting { // where a packet will leave is not known yet there
		if by.Legacy {
			return fmt.Sprintf("%s -D %s %d", tool(by), by.Chain, by.Handle)
		}
		return fmt.Sprintf("nft delete rule %s %s %s handle %d", by.Family, by.Table, by.Chain, by.Handle)
	}
	if t.port != "" {
		return adviceForHost(by, rules, t)
	}
	both := func(format string) string {
		return fmt.Sprintf(format, "-i "+t.link) + " && " + fmt.Sprintf(format, "-o "+t.link)
	}
	switch owner(by, rules) {
	case "firewalld":
		return fmt.Sprintf("firewall-cmd --zone=trusted --add-interface=%s", t.link)
	case "ufw":
		return fmt.Sprintf("ufw route allow in on %[1]s && ufw route allow out on %[1]s", t.link)
	case "docker":
		return both(tool(by) + " -I DOCKER-USER %s -j ACCEPT")
	case "iptables":
		return both(tool(by) + " -I " + by.Chain + " %s -j ACCEPT")
	}
	rule := fmt.Sprintf("nft insert rule %s %s %s", by.Family, by.Table, by.Chain)
	return fmt.Sprintf("%[1]s iifname %[2]s accept && %[1]s oifname %[2]s accept", rule, t.link)
}

// adviceForHost is for ports that a socket of the host's takes.
func adviceForHost(by ruleset.Place, rules *ruleset.Ruleset, t traffic) string {
	switch owner(by, rules) {
	case "firewalld":
		return fmt.Sprintf("firewall-cmd --add-port=%s/%s", t.port, t.proto)
	case "ufw":
		return fmt.Sprintf("ufw allow %s/%s", strings.Replace(t.port, "-", ":", 1), t.proto)
	case "iptables", "docker":
		return fmt.Sprintf("%s -I %s -p %s --dport %s -j ACCEPT", tool(by), by.Chain, t.proto, strings.Replace(t.port, "-", ":", 1))
	}
	return fmt.Sprintf("nft insert rule %s %s %s %s dport %s accept", by.Family, by.Table, by.Chain, t.proto, t.port)
}

// tool is the program that a rule of iptables was made with, and its table.
func tool(by ruleset.Place) string {
	name := "iptables"
	if by.Family == "ip6" {
		name = "ip6tables"
	}
	if by.Legacy {
		name += "-legacy"
	}
	if by.Table != "filter" {
		name += " -t " + by.Table
	}
	return name
}

// owner guesses whose a rule is, by the names that programs give to tables and
// chains. Where several write into one chain, the one whose own way of allowing
// lasts longest is named.
func owner(by ruleset.Place, rules *ruleset.Ruleset) string {
	switch {
	case by.Table == "firewalld":
		return "firewalld"
	case !by.Legacy && (by.Family == "inet" || by.Table != "filter" && by.Table != "raw" && by.Table != "mangle"):
		return ""
	case has(rules, by, "ufw-"):
		return "ufw"
	case by.Chain == "FORWARD" && has(rules, by, "DOCKER-USER"):
		return "docker"
	}
	return "iptables"
}

func hookOf(by ruleset.Place, rules *ruleset.Ruleset) ruleset.Hook {
	for _, c := range rules.Chains {
		if sameTable(c, by) && c.Name == by.Chain {
			return c.Hook
		}
	}
	return ""
}

func has(rules *ruleset.Ruleset, by ruleset.Place, prefix string) bool {
	for _, c := range rules.Chains {
		if sameTable(c, by) && strings.HasPrefix(c.Name, prefix) {
			return true
		}
	}
	return false
}

func sameTable(c ruleset.Chain, by ruleset.Place) bool {
	return c.Family == by.Family && c.Table == by.Table && c.Legacy == by.Legacy
}

// adviceFor finds the rule that a reason names; ok is false when it names none.
func adviceFor(reason string, rules *ruleset.Ruleset, t traffic) (hint string, ok bool) {
	if rules == nil {
		return "", false
	}
	for _, c := range rules.Chains {
		by := ruleset.Place{Family: c.Family, Table: c.Table, Chain: c.Name, Legacy: c.Legacy}
		named, _ := strings.CutPrefix(by.String(), "the policy of")
		if strings.Contains(reason, strings.TrimSuffix(named, "drop)")) {
			_, _ = fmt.Sscanf(reason, "rule %d ", &by.Handle) // a policy has none
			return advice(by, rules, t), true
		}
	}
	return "", false
}
