package ruleset

// run is one packet in one base chain.
type run struct {
	rules         *Ruleset
	packet        Packet
	family, table string
	legacy        bool

	regs    [64]byte
	unknown [16]bool // by register of four bytes
	depth   int

	mayDrop, mayPass *Place // rules that were passed over because nobody understands them
}

// match is whether a step lets its rule go on.
type match int

const (
	no match = iota
	yes
	perhaps
)

// Code is what a verdict says.
type Code int

// Codes.
const (
	Continue Code = iota // no verdict
	Accept
	Drop
	Return
	Jump
	Goto
	Redirected // accepted, with another destination
)

// Verdict ends a rule.
type Verdict struct {
	Code  Code
	Chain string // of Jump and Goto
}

// deepest is the kernel's own limit of jumps.
const deepest = 16

func (r *run) base(c *Chain) Outcome {
	code, by := r.chain(c)
	if code == Continue || code == Return {
		code, by = Accept, r.place(c, nil)
		if c.Drop {
			code = Drop
		}
	}
	switch {
	case code == Drop && r.mayPass != nil:
		return Outcome{Unsure: true, By: by}
	case code == Drop:
		return Outcome{Drop: true, By: by}
	case r.mayDrop != nil:
		return Outcome{Unsure: true, By: *r.mayDrop}
	}
	return Outcome{Redirect: code == Redirected, By: by}
}

func (r *run) place(c *Chain, rule *Rule) Place {
	p := Place{Family: c.Family, Table: c.Table, Chain: c.Name, Legacy: c.Legacy}
	if rule != nil {
		p.Handle, p.Text = rule.Handle, rule.Text
	}
	return p
}

// chain is the verdict of a chain and who gave it.
func (r *run) chain(c *Chain) (Code, Place) {
	if r.depth++; r.depth > deepest {
		return Continue, Place{}
	}
	defer func() { r.depth-- }()
	var back *Place // a rule that perhaps goes back to the caller
	for i := range c.Rules {
		code, by, sure := r.verdict(c, &c.Rules[i])
		switch {
		case !sure && code == Return && c.Hook == "":
			back = first(back, by)
		case !sure:
			r.passOver(c, code, by)
		case code != Continue:
			r.orBack(code, back)
			return code, by
		}
	}
	return Continue, Place{}
}

// verdict is that of a rule, or of the chain that it asks.
func (r *run) verdict(c *Chain, rule *Rule) (Code, Place, bool) {
	v, sure := r.rule(rule)
	by := r.place(c, rule)
	if v.Code == Jump || v.Code == Goto {
		code, by := r.jump(v, by)
		return code, by, sure
	}
	return v.Code, by, sure
}

// jump goes into the chain that the rule at from names.
func (r *run) jump(v Verdict, from Place) (Code, Place) {
	to := r.rules.chain(r.family, r.table, v.Chain, r.legacy)
	if to == nil {
		return Continue, Place{}
	}
	code, by := r.chain(to)
	if code == Continue && v.Code == Goto {
		return Return, from
	}
	if code == Return && v.Code == Jump {
		return Continue, by
	}
	return code, by
}

// passOver notes what would have been the verdict of a rule that is not understood.
func (r *run) passOver(c *Chain, code Code, by Place) {
	if code == Return { // from a base chain to its policy
		if code = Accept; c.Drop {
			code = Drop
		}
	}
	switch code {
	case Drop:
		r.mayDrop = first(r.mayDrop, by)
	case Accept:
		r.mayPass = first(r.mayPass, by)
	case Redirected: // passes, but to somebody else
		r.mayDrop, r.mayPass = first(r.mayDrop, by), first(r.mayPass, by)
	}
}

// orBack: instead of the verdict, what follows at the caller may decide.
func (r *run) orBack(code Code, back *Place) {
	if back != nil && code != Return {
		r.mayDrop, r.mayPass = first(r.mayDrop, *back), first(r.mayPass, *back)
	}
}

func first(p *Place, next Place) *Place {
	if p == nil {
		return &next
	}
	return p
}

// rule is its verdict; sure is false when a condition was not understood.
func (r *run) rule(rule *Rule) (v Verdict, sure bool) {
	sure = true
	for _, s := range rule.Steps {
		m, verdict := s.do(r)
		if m == no {
			return Verdict{}, true
		}
		sure = sure && m == yes
		if verdict.Code != Continue {
			return verdict, sure
		}
	}
	return Verdict{}, sure
}
