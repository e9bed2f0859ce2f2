package responder

// Kept counts the answers that are held in memory.
func (r *Responder) Kept() int {
	n := 0
	for i := range r.answers.shards {
		s := &r.answers.shards[i]
		s.mu.RLock()
		n += len(s.kept)
		s.mu.RUnlock()
	}
	return n
}
