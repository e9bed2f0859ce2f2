package policy

// Rules is the policy, from top to bottom.
var Rules = []Rule{}
