// A queue of bytes, like a pipe: a read waits for bytes, a write waits for room, and poll(2) reports both. With O_NONBLOCK, a call that
// would wait fails with EAGAIN. A signal ends a wait with EINTR.
//
//   swift run queue-device /tmp/queue
//   cat /tmp/queue                                      # waits, and prints the bytes
//   echo hello > /tmp/queue                             # in another terminal
import CharacterDeviceServer
import SystemPackage

final class Queue: CharacterDevice {
  static let capacity = 4096
  private var bytes: [UInt8] = []
  private let readers = WaitQueue<ReadRequest>()
  private let writers = WaitQueue<WriteRequest>()
  private let pollers = PollWaiters()

  /// The queue has no positions, so that a read that waits does not hold up a write of the same open file.
  var isStream: Bool { true }

  private var room: Int { Self.capacity - bytes.count }

  func read(_ request: consuming ReadRequest, _ file: OpenFile<Void>) {
    guard !bytes.isEmpty || !request.isNonBlocking else {
      return request.fail(.resourceTemporarilyUnavailable)
    }
    readers.append(request)
    moveBytes()
  }

  func write(_ request: consuming WriteRequest, _ new: Span<UInt8>, _ file: OpenFile<Void>) {
    guard room > 0 || !request.isNonBlocking else {
      return request.fail(.resourceTemporarilyUnavailable)
    }
    writers.append(request, new)
    moveBytes()
  }

  func poll(_ events: PollEvents, _ file: OpenFile<Void>) -> PollEvents? {
    pollers.add(file)
    return [bytes.isEmpty ? [] : .readable, room > 0 ? .writable : []]
  }

  /// Answers as many requests as can be answered now.
  private func moveBytes() {
    while true {
      if !bytes.isEmpty, let reader = readers.popFirst() {
        let part = bytes.prefix(reader.count)
        // If a signal has ended the client's call, the next client gets the bytes.
        if reader.answer(part) { bytes.removeFirst(part.count) }
      } else if room > 0, let writer = writers.popFirst() {
        let taken = min(room, writer.count)
        writer.withKeptBytes { new in for index in 0..<taken { bytes.append(new[index]) } }
        writer.answer(taken: taken)
      } else {
        return pollers.notify()
      }
    }
  }
}

@main
struct Main {
  static func main() { DeviceProgram.run(Queue(), name: "queue-device") }
}
