package path

import (
	"maps"
	"slices"
)

// anyPolicy is the contents of 2.5.29.32.0.
const anyPolicy = "\x55\x1d\x20\x00"

// policyNode is a node of the graph. At one depth there is one for each policy,
// which is what keeps the graph small (RFC 9618, Section 3).
type policyNode struct {
	policy   string
	expected map[string]bool
	parents  map[string]bool // policies at the depth above
}

// policyGraph is valid_policy_graph, a level for each certificate; nil is NULL.
type policyGraph []map[string]*policyNode

func newPolicyGraph() policyGraph {
	return policyGraph{{anyPolicy: newPolicyNode(anyPolicy)}}
}

func newPolicyNode(policy string, parents ...string) *policyNode {
	n := &policyNode{policy: policy, expected: map[string]bool{policy: true}, parents: map[string]bool{}}
	for _, p := range parents {
		n.parents[p] = true
	}
	return n
}

// grow adds the level of a certificate (RFC 5280, Section 6.1.3 (d) and (e)).
func (g policyGraph) grow(c *cert, anyCounts bool) policyGraph {
	if g == nil || !c.hasPolicies {
		return nil
	}
	above := g[len(g)-1]
	expecting := map[string][]string{} // policy: the nodes above that expect it
	for _, n := range above {
		for p := range n.expected {
			expecting[p] = append(expecting[p], n.policy)
		}
	}
	level := map[string]*policyNode{}
	for _, p := range c.policies {
		if p == anyPolicy {
			continue
		}
		if parents := expecting[p]; parents != nil { // (d)(1)(i)
			level[p] = newPolicyNode(p, parents...)
		} else if above[anyPolicy] != nil { // (d)(1)(ii)
			level[p] = newPolicyNode(p, anyPolicy)
		}
	}
	if anyCounts && slices.Contains(c.policies, anyPolicy) { // (d)(2)
		for p, parents := range expecting {
			if level[p] == nil {
				level[p] = newPolicyNode(p, parents...)
			}
		}
	}
	return append(g, level).prune()
}

// prune is (d)(3): what has no child goes. A graph without a root is NULL.
func (g policyGraph) prune() policyGraph {
	for i := len(g) - 1; i > 0; i-- {
		used := map[string]bool{}
		for _, n := range g[i] {
			maps.Copy(used, n.parents)
		}
		maps.DeleteFunc(g[i-1], func(p string, _ *policyNode) bool { return !used[p] })
	}
	if len(g[0]) == 0 || len(g[len(g)-1]) == 0 {
		return nil
	}
	return g
}

// mapTo is RFC 5280, Section 6.1.4 (b).
func (g policyGraph) mapTo(mappings []mapping, allowed bool) policyGraph {
	if g == nil || len(mappings) == 0 {
		return g
	}
	level := g[len(g)-1]
	to := map[string]map[string]bool{}
	for _, m := range mappings {
		if to[m.issuer] == nil {
			to[m.issuer] = map[string]bool{}
		}
		to[m.issuer][m.subject] = true
	}
	for issuer, subjects := range to {
		switch {
		case !allowed: // (b)(2)
			delete(level, issuer)
		case level[issuer] != nil: // (b)(1)
			level[issuer].expected = subjects
		case level[anyPolicy] != nil:
			n := newPolicyNode(issuer, anyPolicy)
			n.expected = subjects
			level[issuer] = n
		}
	}
	return g.prune()
}

// settle is RFC 5280, Section 6.1.5 (g): the policies of the authorities, in the
// terms of the user's domain, cut down to the user's; nil users means any. What
// comes back has the last level's nodes that are left.
func (g policyGraph) settle(users []string) []string {
	if g == nil {
		return nil
	}
	last := len(g) - 1
	set := map[string]bool{}
	for i := 1; i <= last; i++ {
		for p, n := range g[i] {
			// A policy enters the user's terms where its parent is anyPolicy.
			if p != anyPolicy && n.parents[anyPolicy] {
				set[p] = true
			}
		}
	}
	whole := g[last][anyPolicy] != nil
	if users == nil {
		if whole {
			set[anyPolicy] = true
		}
		return slices.Sorted(maps.Keys(set))
	}
	maps.DeleteFunc(set, func(p string, _ bool) bool { return !slices.Contains(users, p) })
	if whole {
		for _, p := range users {
			set[p] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}
