using System.CommandLine;
using Mesh.AgentApi;
using Mesh.Cli.Text;

namespace Mesh.Cli.Commands;

/// <summary>`mesh service list`.</summary>
internal static class ServiceListCommand
{
    public static Command Build(TextWriter output)
    {
        var command = ListCommand.Build(output, "Frontends and their backends.", "service",
            async (agent, cancel) => Table(await agent.GetServicesAsync(cancel)));
        // Cilium's; which backends are preferred is told anyhow.
        command.Options.Add(new Option<bool>("--clustermesh-affinity") { Hidden = true });
        return command;
    }

    public static string Table(IEnumerable<Service> services)
    {
        var table = new TabWriter(3);
        table.Row("ID", "Frontend", "Service Type", "Backend", "");
        foreach (var service in services.Select(s => s.Status?.Realized ?? s.Spec).OfType<ServiceSpec>().OrderBy(s => s.Id))
        {
            var frontend = HostPort(service.FrontendAddress.Ip, service.FrontendAddress.Port, service.FrontendAddress.Protocol)
                + (service.FrontendAddress.Scope == "internal" ? "/i" : "");
            var type = $"{service.Flags?.Type}{(string.IsNullOrEmpty(service.Flags?.Cluster) ? "" : " (Remote)")}";
            var backends = service.BackendAddresses ?? [];
            table.Row($"{service.Id}", frontend, type, backends.Count == 0 ? "" : Backend(1, backends[0]), "");
            for (var i = 1; i < backends.Count; i++)
                table.Row("", "", "", Backend(i + 1, backends[i]), "");
        }
        return table.ToString();
    }

    private static string Backend(int number, BackendAddress backend) =>
        $"{number} => {HostPort(backend.Ip, backend.Port, backend.Protocol)} ({backend.State ?? "active"})"
        + (backend.Preferred ? " (preferred)" : "");

    private static string HostPort(string ip, ushort port, string? protocol) =>
        (ip.Contains(':') ? $"[{ip}]:{port}" : $"{ip}:{port}") + (string.IsNullOrEmpty(protocol) ? "" : $"/{protocol}");
}
