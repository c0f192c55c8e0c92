using Mesh.ClusterMesh.Wire;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Mesh.Multicluster;

namespace Mesh.ClusterMesh.ApiServer.Converters;

/// <summary>ServiceExport + the Service of its name → one export record. No backend travels in it: those are in the record of the derived
/// service, which the operator makes.</summary>
internal static class ServiceExportConverter
{
    /// <param name="service">Null while there is none: then nothing is exported.</param>
    public static Publishable Convert(ServiceExport export, Service? service, ClusterSelf self, bool globalNamespace)
    {
        var reading = ExportReading.Of(export, service, self.Name, globalNamespace);
        if (reading.Exported is { } exported)
            return Publishable.One(Keys.ServiceExport(self.Name, new ServiceName(exported.Namespace, exported.Name)), ExportedServiceCodec.Encode(exported));
        return globalNamespace ? Publishable.Refused(reading.Message) : Publishable.Nothing;
    }
}
