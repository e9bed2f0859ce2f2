package hsm

import "context"

// Break runs f while no call is in the library: SoftHSM frees the sessions that it
// closes even while another thread works in one.
func (t *Token) Break(f func(slot uint) error) error {
	c, err := t.connected(context.Background())
	if err != nil {
		return err
	}
	if err := t.m.gate.Acquire(context.Background(), everyone); err != nil {
		return err
	}
	defer t.m.gate.Release(everyone)
	return f(c.slot)
}

func (t *Token) CloseAllSessions() error { return t.Break(t.m.ctx.CloseAllSessions) }

func (t *Token) Finalize() error { return t.Break(func(uint) error { return t.m.ctx.Finalize() }) }

func (t *Token) Logout() error {
	return t.Break(func(uint) error { return t.m.ctx.Logout(t.conn.Load().anchor) })
}
