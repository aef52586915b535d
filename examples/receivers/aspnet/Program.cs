// A receiver of memhook's webhooks with ASP.NET Core 8 or newer: MEMHOOK_SECRET=whsec_… dotnet run --urls http://127.0.0.1:9000
using System.Collections.Concurrent;
using System.Security.Cryptography;
using System.Text;

const long Tolerance = 300; // seconds
var key = Convert.FromBase64String(Environment.GetEnvironmentVariable("MEMHOOK_SECRET")!["whsec_".Length..]);
var seen = new ConcurrentDictionary<string, bool>(); // keep it in your database, together with what you do
var app = WebApplication.CreateBuilder(args).Build();

app.MapPost("/hooks", async (HttpRequest request) =>
{
    using var buffer = new MemoryStream();
    await request.Body.CopyToAsync(buffer);
    var body = buffer.ToArray(); // the signature is of the body as it came
    string id = request.Headers["webhook-id"].ToString(), timestamp = request.Headers["webhook-timestamp"].ToString();
    var now = DateTimeOffset.UtcNow.ToUnixTimeSeconds();
    if (!long.TryParse(timestamp, out var seconds) || seconds < now - Tolerance || seconds > now + Tolerance)
        return Results.Unauthorized();
    byte[] signed = [.. Encoding.UTF8.GetBytes($"{id}.{timestamp}."), .. body];
    var want = Encoding.UTF8.GetBytes("v1," + Convert.ToBase64String(HMACSHA256.HashData(key, signed)));
    var given = request.Headers["webhook-signature"].ToString().Split(' ');
    if (!given.Any(signature => CryptographicOperations.FixedTimeEquals(want, Encoding.UTF8.GetBytes(signature))))
        return Results.Unauthorized();
    if (seen.TryAdd(id, true))
        Console.WriteLine("working on " + Encoding.UTF8.GetString(body)); // long work belongs into a queue
    return Results.NoContent();
});

app.Run();
