// Namespaces and mounts are Linux.
[assembly: System.Runtime.Versioning.SupportedOSPlatform("linux")]
