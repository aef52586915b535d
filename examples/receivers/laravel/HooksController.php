<?php

// app/Http/Controllers/HooksController.php: a receiver of memhook's webhooks with Laravel 8 or newer, at /api/hooks.
// routes/api.php (`php artisan install:api` makes it), without its limit of 60 requests per minute:
// Route::post('/hooks', HooksController::class)->withoutMiddleware('throttle:api');
// config/services.php: 'memhook' => ['secret' => env('MEMHOOK_SECRET')],

namespace App\Http\Controllers;

use App\Jobs\HandleWebhook;
use Illuminate\Http\Request;
use Illuminate\Http\Response;
use Illuminate\Support\Facades\Cache;

class HooksController extends Controller
{
    private const TOLERANCE = 300; // seconds

    public function __invoke(Request $request): Response
    {
        $body = $request->getContent(); // the signature is of the body as it came
        if (! $this->signed($request, $body)) {
            return response()->noContent(401);
        }
        $id = $request->header('webhook-id');
        // The job comes first: if it cannot be queued, the id is not stored, and the webhook comes again. Two deliveries of one event
        // at once can both be queued: let the job store what it has done under a unique index, in the transaction of its work.
        if (! Cache::has("webhook:$id")) {
            HandleWebhook::dispatch($id, json_decode($body, true));
            Cache::put("webhook:$id", true, now()->addDays(7));
        }

        return response()->noContent();
    }

    private function signed(Request $request, string $body): bool
    {
        $id = (string) $request->header('webhook-id');
        $timestamp = (string) $request->header('webhook-timestamp');
        if (abs(time() - (int) $timestamp) > self::TOLERANCE) {
            return false;
        }
        $key = base64_decode(substr(config('services.memhook.secret'), strlen('whsec_')));
        $want = 'v1,'.base64_encode(hash_hmac('sha256', "$id.$timestamp.$body", $key, true));
        foreach (explode(' ', (string) $request->header('webhook-signature')) as $signature) {
            if (hash_equals($want, $signature)) {
                return true;
            }
        }

        return false;
    }
}
