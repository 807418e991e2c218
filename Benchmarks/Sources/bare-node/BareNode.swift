// The device at a node without trace, logs and counters. The difference to virt-walkerd is their price.
//
// usage: bare-node FILE       (until SIGTERM)
import CharacterDeviceServer
import Scenarios
import Stage2Sim
import SystemPackage
import VirtWalkerDevice

@main
struct BareNode {
  static func main() throws {
    let path = FilePath(CommandLine.arguments[1])
    let signals = try TerminationSignals()
    let engine = try ModelEngine(MachineDescription(.init()), driver: VirtWalkerDriver.self)
    engine.virtualMachine.events = nil
    let server = try FUSEServer(
      path: path, application: Application(name: "bare-node"), device: engine)
    defer { server.close() }
    // The loop waits as virt-walkerd does.
    let loop = try EventLoop(waiting: AdaptiveWait())
    try loop.add(server) { if $0 == .end { loop.stop() } }
    try loop.add(signals.descriptor) { loop.stop() }
    try FileDescriptor.standardOutput.writeAll("ready\n".utf8)
    try loop.run()
  }
}
