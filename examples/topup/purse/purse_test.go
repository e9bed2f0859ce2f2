package purse_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"hufu/examples/topup/purse"
)

type loadVector struct {
	Inputs struct {
		OldBalance               string `json:"old_balance"`
		OnlineCounter            string `json:"online_counter"`
		Random, Amount, Terminal string
		HostDate                 string `json:"host_date"`
		HostTime                 string `json:"host_time"`
	}
	Initialize       string `json:"c_apdu_initialize_for_load"`
	InitializeAnswer string `json:"r_apdu_initialize_for_load"`
	Credit           string `json:"c_apdu_credit_for_load"`
	CreditAnswer     string `json:"r_apdu_credit_for_load"`
	Balance          string `json:"c_apdu_get_balance"`
	BalanceAfter     string `json:"r_apdu_get_balance_after"`
	MAC1, MAC2, TAC  string
}

type keyVector struct {
	National string `json:"national_master"`
	Issuer   string `json:"issuer_factor"`
	City     string `json:"city_master"`
	CityKCV  string `json:"city_master_kcv"`
	Card     string `json:"card_factor"`
	CardKey  string `json:"card_key"`
	CardKCV  string `json:"card_key_kcv"`
}

var vectors struct {
	Published struct {
		Load struct {
			Key                          string `json:"load_key"`
			Random                       string
			OnlineCounter                string `json:"online_counter"`
			OldBalance                   string `json:"old_balance"`
			Amount, Terminal, MAC1, MAC2 string
			HostDate                     string `json:"host_date"`
			HostTime                     string `json:"host_time"`
		} `json:"load_ED"`
	} `json:"published_crosscheck_3des"`
	Diversify struct {
		ASN  string `json:"application_serial_number_10"`
		Keys map[string]keyVector
	} `json:"diversify_3des"`
	Load1    loadVector `json:"load_ep_1"`
	Load2    loadVector `json:"load_ep_2_chained"`
	Negative struct {
		CAPDU string `json:"c_apdu"`
		SW    string `json:"expected_sw"`
	} `json:"load_ep_1_negative"`
}

func read(t *testing.T) {
	t.Helper()
	raw, err := os.ReadFile("testdata/purse.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
}

func un(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil || len(b) == 0 {
		t.Fatalf("vector %q: %v", s, err)
	}
	return b
}

func num(t *testing.T, s string) (n uint32) {
	for _, b := range un(t, s) {
		n = n<<8 | uint32(b)
	}
	return n
}

func testCard(t *testing.T) *purse.Card {
	t.Helper()
	m := purse.Memory{ASN: [10]byte(un(t, vectors.Diversify.ASN)), City: [3]byte{0x33, 0x01, 0x00},
		LoadKey: purse.Key(un(t, vectors.Diversify.Keys["load"].CardKey)), TACKey: purse.Key(un(t, vectors.Diversify.Keys["tac"].CardKey)),
		Balance: num(t, vectors.Load1.Inputs.OldBalance), Online: uint16(num(t, vectors.Load1.Inputs.OnlineCounter))}
	c := purse.NewCard(m)
	if ans, _ := c.Transmit(purse.Select()); !bytes.HasSuffix(ans, []byte{0x90, 0x00}) {
		t.Fatalf("SELECT: %X", ans)
	}
	return c
}

func TestKeysAreDiversifiedAsTheVectorsSay(t *testing.T) {
	read(t)
	for name, v := range vectors.Diversify.Keys {
		city := purse.Key(un(t, v.National)).Diversify([8]byte(un(t, v.Issuer)))
		card := city.Diversify([8]byte(un(t, v.Card)))
		cityKCV, cardKCV := city.KCV(), card.KCV()
		if !bytes.Equal(city[:], un(t, v.City)) || !bytes.Equal(card[:], un(t, v.CardKey)) {
			t.Errorf("%s: city %X card %X", name, city, card)
		}
		if !bytes.Equal(cityKCV[:], un(t, v.CityKCV)) || !bytes.Equal(cardKCV[:], un(t, v.CardKCV)) {
			t.Errorf("%s: KCV city %X card %X", name, cityKCV, cardKCV)
		}
	}
}

func TestPublishedExample(t *testing.T) {
	read(t)
	v := vectors.Published.Load
	l := purse.Load{OldBalance: num(t, v.OldBalance), Counter: uint16(num(t, v.OnlineCounter)), Random: [4]byte(un(t, v.Random)), Amount: num(t, v.Amount),
		Type: 0x01, Terminal: purse.Terminal(un(t, v.Terminal)), HostDate: [4]byte(un(t, v.HostDate)), HostTime: [3]byte(un(t, v.HostTime))}
	key := purse.Key(un(t, v.Key))
	mac1, mac2 := l.MAC1(key), l.MAC2(key)
	if !bytes.Equal(mac1[:], un(t, v.MAC1)) || !bytes.Equal(mac2[:], un(t, v.MAC2)) {
		t.Errorf("MAC1 %X MAC2 %X", mac1, mac2)
	}
}

// TestTwoLoadsByteForByte runs both loads through the card and compares every
// octet of every answer.
func TestTwoLoadsByteForByte(t *testing.T) {
	read(t)
	c := testCard(t)
	for _, v := range []loadVector{vectors.Load1, vectors.Load2} {
		c.Rand = bytes.NewReader(un(t, v.Inputs.Random))
		for _, step := range [][2]string{{v.Initialize, v.InitializeAnswer}, {v.Credit, v.CreditAnswer}, {v.Balance, v.BalanceAfter}} {
			ans, torn := c.Transmit(un(t, step[0]))
			if torn || !bytes.Equal(ans, un(t, step[1])) {
				t.Fatalf("%s: card answered %X, vector says %s", step[0], ans, step[1])
			}
		}
		// The host's side of the same load.
		init, err := purse.ParseInitialized(un(t, v.InitializeAnswer)[:16])
		if err != nil {
			t.Fatal(err)
		}
		l := purse.Load{OldBalance: init.Balance, Counter: init.Counter, Random: init.Random, Amount: num(t, v.Inputs.Amount), Type: purse.TypeEPLoad,
			Terminal: purse.Terminal(un(t, v.Inputs.Terminal)), HostDate: [4]byte(un(t, v.Inputs.HostDate)), HostTime: [3]byte(un(t, v.Inputs.HostTime))}
		m := c.Memory()
		if l.MAC1(m.LoadKey) != init.MAC1 {
			t.Error("the host does not accept the card's MAC1")
		}
		if got := purse.CreditForLoad(l.HostDate, l.HostTime, l.MAC2(m.LoadKey)); !bytes.Equal(got, un(t, v.Credit)) {
			t.Errorf("host's CREDIT FOR LOAD is %X, vector says %s", got, v.Credit)
		}
		if tac := l.TAC(m.TACKey); !bytes.Equal(tac[:], un(t, v.TAC)) {
			t.Errorf("host's TAC is %X, vector says %s", tac, v.TAC)
		}
	}
}

func TestWrongMAC2ChangesNothing(t *testing.T) {
	read(t)
	c := testCard(t)
	c.Rand = bytes.NewReader(un(t, vectors.Load1.Inputs.Random))
	before := c.Memory()
	c.Transmit(un(t, vectors.Load1.Initialize))
	if ans, _ := c.Transmit(un(t, vectors.Negative.CAPDU)); !bytes.Equal(ans, un(t, vectors.Negative.SW)) {
		t.Fatalf("card answered %X, want %s", ans, vectors.Negative.SW)
	}
	if m := c.Memory(); m.Balance != before.Balance || m.Online != before.Online {
		t.Errorf("balance %d counter %d changed", m.Balance, m.Online)
	}
	if ans, _ := c.Transmit(un(t, vectors.Load1.Credit)); !bytes.Equal(ans, []byte{0x69, 0x01}) {
		t.Errorf("the load state was not dropped: %X", ans)
	}
}

func TestAnyOtherCommandDropsTheLoad(t *testing.T) {
	read(t)
	c := testCard(t)
	c.Rand = bytes.NewReader(un(t, vectors.Load1.Inputs.Random))
	c.Transmit(un(t, vectors.Load1.Initialize))
	c.Transmit(purse.GetBalance())
	if ans, _ := c.Transmit(un(t, vectors.Load1.Credit)); !bytes.Equal(ans, []byte{0x69, 0x01}) {
		t.Errorf("CREDIT FOR LOAD after GET BALANCE: %X", ans)
	}
}

func TestTornCard(t *testing.T) {
	read(t)
	for tear, credited := range map[purse.Tear]bool{purse.TearBeforeCommit: false, purse.TearAfterCommit: true} {
		c := testCard(t)
		c.Rand = bytes.NewReader(un(t, vectors.Load1.Inputs.Random))
		before := c.Memory()
		c.Transmit(un(t, vectors.Load1.Initialize))
		c.Tear = tear
		if _, torn := c.Transmit(un(t, vectors.Load1.Credit)); !torn {
			t.Fatal("the card was not torn out")
		}
		m := c.Memory()
		if got := m.Balance != before.Balance; got != credited || (m.Online == before.Online+1) != credited {
			t.Errorf("tear %d: balance %d counter %d", tear, m.Balance, m.Online)
		}
		// Back in the field, the card shows what it did.
		c.Transmit(purse.Select())
		want := []byte{0x94, 0x06}
		if credited {
			credit := un(t, vectors.Load1.Credit)
			want = append(append(credit[12:16:16], un(t, vectors.Load1.TAC)...), 0x90, 0x00)
		}
		if ans, _ := c.Transmit(purse.GetTransactionProve(purse.TypeEPLoad, before.Online)); !bytes.Equal(ans, want) {
			t.Errorf("tear %d: GET TRANSACTION PROVE answered %X, want %X", tear, ans, want)
		}
		if ans, _ := c.Transmit(purse.GetTransactionProve(purse.TypeEPLoad, before.Online+7)); !bytes.Equal(ans, []byte{0x94, 0x06}) {
			t.Errorf("a load that never was: %X", ans)
		}
	}
}

// FuzzTransmit: no command crashes the card, and none but a right CREDIT FOR
// LOAD changes balance or counter.
func FuzzTransmit(f *testing.F) {
	f.Add([]byte{0x80, 0x50, 0x00, 0x02, 0x0B}, []byte{0x80, 0x52, 0x00, 0x00, 0x0B})
	f.Add(purse.GetBalance(), []byte{0x00, 0xB2, 0x01, 0xC4})
	f.Add(purse.GetTransactionProve(purse.TypeEPLoad, 3), purse.ReadPublic())
	f.Fuzz(func(t *testing.T, a, b []byte) {
		c := purse.NewCard(purse.Memory{Balance: 7, Online: 3})
		c.Transmit(purse.Select())
		for _, apdu := range [][]byte{a, b} {
			if ans, torn := c.Transmit(apdu); torn || len(ans) < 2 {
				t.Fatalf("%X: answer %X torn %v", apdu, ans, torn)
			}
		}
		if m := c.Memory(); m.Balance != 7 || m.Online != 3 {
			t.Fatalf("balance %d counter %d", m.Balance, m.Online)
		}
	})
}
