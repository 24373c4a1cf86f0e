package ruleset

// run is one packet in one base chain.
type run struct {
	rules         *Ruleset
	packet        Packet
	family, table string

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
	p := Place{Family: c.Family, Table: c.Table, Chain: c.Name}
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
	for i := range c.Rules {
		v, sure := r.rule(&c.Rules[i])
		by := r.place(c, &c.Rules[i])
		if v.Code == Jump || v.Code == Goto {
			v.Code, by = r.jump(v, sure)
		}
		if !sure {
			r.passOver(v.Code, by)
			continue
		}
		if v.Code != Continue {
			return v.Code, by
		}
	}
	return Continue, Place{}
}

// jump goes into another chain; a jump that is not sure to be made leaves what it
// finds to passOver.
func (r *run) jump(v Verdict, sure bool) (Code, Place) {
	to := r.rules.chain(r.family, r.table, v.Chain)
	if to == nil {
		return Continue, Place{}
	}
	code, by := r.chain(to)
	if code == Continue && v.Code == Goto && sure {
		return Return, by
	}
	if code == Return && v.Code == Jump {
		return Continue, by
	}
	return code, by
}

func (r *run) passOver(code Code, by Place) {
	switch code {
	case Drop:
		if r.mayDrop == nil {
			r.mayDrop = &by
		}
	case Accept, Redirected, Return:
		if r.mayPass == nil {
			r.mayPass = &by
		}
	}
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
