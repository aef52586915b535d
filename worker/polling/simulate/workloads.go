package simulate

import (
	"math"
	"math/rand/v2"
	"time"
)

const tasksEach = 2500

// Workloads are those by which policies are compared, 2,500 tasks each.
func Workloads() []Workload {
	return []Workload{
		lognormal("lognormal, 0.1/s", 0.1, 1, 2*time.Minute),
		lognormal("lognormal, 0.3/s (saturated)", 0.3, 1, 2*time.Minute),
		mixture("mixture, 0.05/s", 0.05),
		mixture("mixture, 0.2/s (saturated)", 0.2),
		lognormal("bursts of 50, 0.1/s", 0.1, 50, 2*time.Minute),
		lognormal("slow: lognormal 30 min, 0.2/s", 0.2, 1, 30*time.Minute),
	}
}

// lognormal has a median and σ 1.
func lognormal(name string, rate float64, burst int, median time.Duration) Workload {
	return Workload{
		Name: name, Tasks: tasksEach, Rate: rate, Burst: burst,
		Draw: func(r *rand.Rand) (time.Duration, bool) {
			return time.Duration(float64(median) * math.Exp(r.NormFloat64())), true
		},
		Survive: func(age time.Duration) float64 { return lognormalSurvival(age, median, 1) },
	}
}

func lognormalSurvival(age, median time.Duration, sigma float64) float64 {
	if age <= 0 {
		return 1
	}
	return 0.5 * math.Erfc(math.Log(float64(age)/float64(median))/(sigma*math.Sqrt2))
}

// mixture has 70 % of tasks around a minute, 25 % around ten, and 5 % that are never ready.
func mixture(name string, rate float64) Workload {
	const quick, slow, sigma = time.Minute, 10 * time.Minute, 0.5
	return Workload{
		Name: name, Tasks: tasksEach, Rate: rate,
		Draw: func(r *rand.Rand) (time.Duration, bool) {
			u, spread := r.Float64(), math.Exp(sigma*r.NormFloat64())
			switch {
			case u < 0.7:
				return time.Duration(float64(quick) * spread), true
			case u < 0.95:
				return time.Duration(float64(slow) * spread), true
			default:
				return 0, false
			}
		},
		Survive: func(age time.Duration) float64 {
			return 0.7*lognormalSurvival(age, quick, sigma) + 0.25*lognormalSurvival(age, slow, sigma) + 0.05
		},
	}
}
