using System.Net;
using System.Runtime.InteropServices;
using Mesh.KubeApi;

// kube-api [--listen IP:PORT] [--http] [--kubeconfig FILE] [--context NAME] [--allow-all] [--faults] [--apply FILE]...
var options = new KubeApiOptions();
string? kubeconfig = null;
var context = "mesh";
var manifests = new List<string>();
for (var i = 0; i < args.Length; i++)
{
    string Value() => ++i < args.Length ? args[i] : throw new ArgumentException($"{args[i - 1]} wants a value");
    switch (args[i])
    {
        case "--listen":
            var end = IPEndPoint.Parse(Value());
            options = options with { Address = end.Address, Port = end.Port };
            break;
        case "--http":
            options = options with { Tls = false };
            break;
        case "--kubeconfig":
            kubeconfig = Value();
            break;
        case "--context":
            context = Value();
            break;
        case "--allow-all":
            options = options with { Authorization = KubeAuthorization.AlwaysAllow };
            break;
        case "--faults":
            options = options with { FaultPath = true };
            break;
        case "--apply":
            manifests.Add(Value());
            break;
        default:
            Console.Error.WriteLine($"kube-api: unknown argument {args[i]}; there are --listen IP:PORT, --http, --kubeconfig FILE, --context NAME, "
                + "--allow-all, --faults, --apply FILE");
            return 2;
    }
}
await using var server = await KubeApiServer.StartAsync(options);
foreach (var file in manifests)
    server.Apply(await File.ReadAllTextAsync(file));
if (kubeconfig is not null)
    server.WriteKubeconfig(kubeconfig, context);
Console.Error.WriteLine($"kube-api: serving {server.Url}");
var ended = new TaskCompletionSource();
using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, signal =>
{
    signal.Cancel = true;
    ended.TrySetResult();
});
using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, signal =>
{
    signal.Cancel = true;
    ended.TrySetResult();
});
await ended.Task;
return 0;
