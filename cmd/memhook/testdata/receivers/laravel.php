<?php

// What Laravel does around the controller: an application in one file, for `php -S`. CONTROLLER names the controller's file.

namespace {
    require_once 'Illuminate/autoload.php';
}

namespace App\Http\Controllers {
    class Controller extends \Illuminate\Routing\Controller
    {
    }
}

namespace App\Jobs {
    class HandleWebhook implements \Illuminate\Contracts\Queue\ShouldQueue
    {
        use \Illuminate\Foundation\Bus\Dispatchable;

        public function __construct(private string $id, private array $event)
        {
        }

        public function handle(): void
        {
            file_put_contents('php://stdout', 'working on '.json_encode($this->event)."\n");
        }
    }
}

namespace {
    require getenv('CONTROLLER');
    $app = new Illuminate\Foundation\Application(getcwd());
    $app->instance('config', new Illuminate\Config\Repository([
        'app' => ['debug' => true],
        'cache' => ['default' => 'file', 'prefix' => '', 'stores' => ['file' => ['driver' => 'file', 'path' => getcwd().'/cache']]],
        'queue' => ['default' => 'sync', 'connections' => ['sync' => ['driver' => 'sync']]],
        'logging' => ['default' => 'errorlog', 'channels' => ['errorlog' => ['driver' => 'errorlog']]],
        'view' => ['paths' => [], 'compiled' => getcwd()],
        'services' => ['memhook' => ['secret' => getenv('MEMHOOK_SECRET')]],
    ]));
    Illuminate\Support\Facades\Facade::setFacadeApplication($app);
    $app->singleton(Illuminate\Contracts\Debug\ExceptionHandler::class, Illuminate\Foundation\Exceptions\Handler::class);
    foreach (['Filesystem\Filesystem', 'Cache\Cache', 'Bus\Bus', 'Queue\Queue', 'View\View'] as $name) {
        $app->register("Illuminate\\{$name}ServiceProvider");
    }
    $app['router']->post('/hooks', App\Http\Controllers\HooksController::class);
    $kernel = new class($app, $app['router']) extends Illuminate\Foundation\Http\Kernel
    {
        protected $bootstrappers = [Illuminate\Foundation\Bootstrap\BootProviders::class];
    };
    $request = Illuminate\Http\Request::capture();
    $response = $kernel->handle($request);
    $response->send();
    $kernel->terminate($request, $response);
}
