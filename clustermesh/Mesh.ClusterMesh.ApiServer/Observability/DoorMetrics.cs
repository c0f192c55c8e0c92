using System.Globalization;
using System.Text;
using Mesh.ClusterMesh.Door;

namespace Mesh.ClusterMesh.ApiServer.Observability;

/// <summary>The door's part of the Prometheus page, read from its status at each scrape.</summary>
internal static class DoorMetrics
{
    public static string Page(DoorStatus door, string cluster, DateTimeOffset now)
    {
        var page = new StringBuilder();
        void One(string name, string type, string help, double value) => page.Append(CultureInfo.InvariantCulture,
            $"# HELP mesh_door_{name} {help}\n# TYPE mesh_door_{name} {type}\nmesh_door_{name}{{source_cluster=\"{cluster}\"}} {value}\n");
        void Gauge(string name, string help, double value) => One(name, "gauge", help, value);
        void Counter(string name, string help, double value) => One(name, "counter", help, value);

        Gauge("open", "Whether readers are let in", door.Open ? 1 : 0);
        Gauge("etcd_connected", "Whether the door follows its etcd", door.Etcd.Connected ? 1 : 0);
        Counter("etcd_reconnections_total", "Number of times the watch on etcd broke", door.Etcd.Reconnections);
        Counter("etcd_reloads_total", "Number of times the whole key space had to be listed again", door.Etcd.Reloads);
        Gauge("revision", "Newest revision that readers are served", door.Revision);
        Gauge("oldest_revision", "Oldest revision that readers are served", door.OldestRevision);
        Gauge("keys", "Number of keys in memory", door.Keys);
        Gauge("connections", "Number of connections of readers", door.Connections);
        Counter("connections_refused_total", "Number of connections refused", door.ConnectionsRefused);
        Counter("ranges_total", "Number of reads answered", door.Ranges);
        Counter("watches_total", "Number of watches created", door.Watches);
        Counter("events_sent_total", "Number of events sent", door.EventsSent);
        Counter("events_conflated_total", "Number of puts not sent because a newer one of the key followed", door.ConflatedEvents);
        Counter("watches_compacted_total", "Number of watches told to list again", door.CompactedWatches);
        Counter("streams_cut_total", "Number of streams cut: grants, certificates or another etcd", door.StreamsCut);
        Counter("refusals_total", "Number of requests refused", door.Refusals);
        Counter("malformed_total", "Number of malformed requests", door.Malformed);
        Counter("resets_punished_total", "Number of connections cut for resetting requests", door.ResetsPunished);
        Counter("delayed_total", "Number of requests delayed because their connection asked too often", door.Delayed);
        Gauge("problems", "Number of the door's problems; /problems lists them", door.Problems.Count);
        Gauge("certificate_days_left", "Days until the door's certificate ends", Math.Round((door.CertificateNotAfter - now).TotalDays, 2));
        Gauge("authority_days_left", "Days until the first of the trusted authorities ends", Math.Round((door.AuthorityNotAfter - now).TotalDays, 2));
        return page.ToString();
    }
}
