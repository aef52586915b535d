package worker

import (
	"testing"

	"github.com/memhook/memhook/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }
