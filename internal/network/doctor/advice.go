package doctor

import (
	"fmt"
	"strings"

	"isle/internal/ruleset"
)

// advice is how the owner of a rule lets our bridge's packets pass. They are
// decided about in our own table, so both directions are let through.
func advice(by ruleset.Place, rules *ruleset.Ruleset, link string) string {
	tool := "iptables"
	if by.Family == "ip6" {
		tool = "ip6tables"
	}
	if by.Handle != 0 && hookOf(by, rules) == ruleset.Prerouting { // where a packet will leave is not known yet there
		return fmt.Sprintf("nft delete rule %s %s %s handle %d", by.Family, by.Table, by.Chain, by.Handle)
	}
	both := func(format string) string {
		return fmt.Sprintf(format, "-i "+link) + " && " + fmt.Sprintf(format, "-o "+link)
	}
	switch owner(by, rules) {
	case "firewalld":
		return fmt.Sprintf("firewall-cmd --zone=trusted --add-interface=%s", link)
	case "ufw":
		return fmt.Sprintf("ufw route allow in on %[1]s && ufw route allow out on %[1]s", link)
	case "docker":
		return both(tool + " -I DOCKER-USER %s -j ACCEPT")
	case "iptables":
		return both(tool + " -I " + by.Chain + " %s -j ACCEPT")
	}
	rule := fmt.Sprintf("nft insert rule %s %s %s", by.Family, by.Table, by.Chain)
	return fmt.Sprintf("%[1]s iifname %[2]s accept && %[1]s oifname %[2]s accept", rule, link)
}

// owner guesses whose a rule is, by the names that programs give to tables and
// chains. Where several write into one chain, the one whose own way of allowing
// lasts longest is named.
func owner(by ruleset.Place, rules *ruleset.Ruleset) string {
	switch {
	case by.Table == "firewalld":
		return "firewalld"
	case by.Family == "inet" || by.Table != "filter" && by.Table != "raw" && by.Table != "mangle":
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
		if c.Family == by.Family && c.Table == by.Table && c.Name == by.Chain {
			return c.Hook
		}
	}
	return ""
}

func has(rules *ruleset.Ruleset, by ruleset.Place, prefix string) bool {
	for _, c := range rules.Chains {
		if c.Family == by.Family && c.Table == by.Table && strings.HasPrefix(c.Name, prefix) {
			return true
		}
	}
	return false
}

// adviceFor finds the rule that a reason names.
func adviceFor(reason string, rules *ruleset.Ruleset, link string) string {
	if rules == nil {
		return ""
	}
	for _, c := range rules.Chains {
		if strings.Contains(reason, fmt.Sprintf(" chain %s of table %s %s ", c.Name, c.Family, c.Table)) {
			by := ruleset.Place{Family: c.Family, Table: c.Table, Chain: c.Name}
			_, _ = fmt.Sscanf(reason, "rule %d ", &by.Handle) // a policy has none
			return advice(by, rules, link)
		}
	}
	return ""
}
