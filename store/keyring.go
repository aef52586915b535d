package store

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// keyIDSize is how many bytes of a key's SHA-256 stand before what it sealed.
const keyIDSize = 4

// Keyring seals secrets with AES-256-GCM. The first key seals, every key opens.
// A sealed value is key id (4 bytes), nonce (12), ciphertext and tag.
type Keyring struct {
	ids   [][keyIDSize]byte
	aeads []cipher.AEAD
}

// ParseKeyring reads MEMHOOK_ENCRYPTION_KEY: base64 of 32 bytes, or several of them separated by
// commas, the first of which seals.
func ParseKeyring(s string) (*Keyring, error) {
	k := &Keyring{}
	for part := range strings.SplitSeq(s, ",") {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(part))
		if err != nil || len(raw) != 32 {
			return nil, fmt.Errorf("key %d is not base64 of 32 bytes", len(k.ids)+1)
		}
		block, err := aes.NewCipher(raw)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(raw)
		k.ids = append(k.ids, [keyIDSize]byte(sum[:keyIDSize]))
		k.aeads = append(k.aeads, aead)
	}
	return k, nil
}

// Seal encrypts plain for one place, such as "endpoint.secret": moved to another, it does not open.
func (k *Keyring) Seal(place string, plain []byte) []byte {
	out := make([]byte, keyIDSize+12, keyIDSize+12+len(plain)+16)
	copy(out, k.ids[0][:])
	_, _ = rand.Read(out[keyIDSize:]) // crypto/rand never fails: it ends the program instead
	return k.aeads[0].Seal(out, out[keyIDSize:], plain, []byte(place))
}

// Open decrypts what Seal made.
func (k *Keyring) Open(place string, sealed []byte) ([]byte, error) {
	if len(sealed) < keyIDSize+12 {
		return nil, fmt.Errorf("open %s: too short to be sealed", place)
	}
	for i, id := range k.ids {
		if id != [keyIDSize]byte(sealed[:keyIDSize]) {
			continue
		}
		plain, err := k.aeads[i].Open(nil, sealed[keyIDSize:keyIDSize+12], sealed[keyIDSize+12:], []byte(place))
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", place, err)
		}
		return plain, nil
	}
	return nil, fmt.Errorf("open %s: it is sealed with a key that is not in MEMHOOK_ENCRYPTION_KEY", place)
}

const checkSentence = "memhook"

// VerifyKeys fails unless the keyring can open what this database holds. It changes nothing.
func (s *Store) VerifyKeys(ctx context.Context) error {
	var sealed []byte
	err := s.pool.QueryRow(ctx, `select sealed from keyring_check`).Scan(&sealed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // a new database: any key will do
	}
	return s.checkMark(sealed, err)
}

// CheckKeys fails unless the keyring can open what this database holds. On a new database it leaves the mark by which
// later starts are checked.
func (s *Store) CheckKeys(ctx context.Context) error {
	var sealed []byte
	err := s.pool.QueryRow(ctx, `
		insert into keyring_check (sealed) values ($1)
		on conflict (one) do update set one = true
		returning sealed`, s.keys.Seal("keyring.check", []byte(checkSentence))).Scan(&sealed)
	return s.checkMark(sealed, err)
}

// checkMark fails unless the keyring can open the mark that was read, or err says why it could not be read.
func (s *Store) checkMark(sealed []byte, err error) error {
	if err != nil {
		return fmt.Errorf("check encryption key: %w", err)
	}
	if _, err := s.keys.Open("keyring.check", sealed); err != nil {
		return fmt.Errorf("MEMHOOK_ENCRYPTION_KEY does not fit this database: %w", err)
	}
	return nil
}
