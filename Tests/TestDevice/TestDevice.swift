// A device for tests of the library. A read reports the requests that the device has got, and a write selects the next
// answer.
//
// A read gives one line: the numbers of files that were opened, released and flushed, and the reader's pid, uid, gid,
// offset and O_NONBLOCK. A write contains one of these words:
//
//   drop      the write is dropped without an answer
//   thread    the next read is answered by another thread
//   drop-read the next read is dropped by another thread
//   close     close(2) of the file fails with EDQUOT
import CharacterDeviceServer
import Glibc
import SystemPackage

final class TestDevice: CharacterDevice {
  final class State {
    var wish = ""
  }

  private var opens = 0
  private var releases = 0
  private var flushes = 0
  private let waiting = WaitQueue<ReadRequest>()

  var wantsFlush: Bool { true }

  func open(_ request: consuming OpenRequest<State>) {
    guard request.flags & O_SYNC == 0 else { return request.fail(.resourceBusy) }
    opens += 1
    request.accept(State())
  }

  func release(_ file: OpenFile<State>) {
    releases += 1
    print("released \(releases) of \(opens)")
    fflush(nil)
  }

  func read(_ request: consuming ReadRequest, _ file: OpenFile<State>) {
    let caller = request.caller
    let line =
      "\(opens) \(releases) \(flushes) \(caller.pid) \(caller.uid) \(caller.gid) \(request.offset) \(request.isNonBlocking ? 1 : 0)\n"
    guard file.handle.wish.isEmpty else {
      waiting.append(request)
      answerInThread(line, isDropped: file.handle.wish == "drop-read")
      file.handle.wish = ""
      return
    }
    request.answer(line.utf8)
  }

  func write(_ request: consuming WriteRequest, _ bytes: Span<UInt8>, _ file: OpenFile<State>) {
    let wish = String(decoding: bytes.indices.map { bytes[$0] }, as: UTF8.self)
    if wish == "drop" { return }
    file.handle.wish = wish
    request.answer(taken: bytes.count)
  }

  func flush(_ request: consuming SyncRequest, _ file: OpenFile<State>) {
    flushes += 1
    if file.handle.wish == "close" {
      request.fail(Errno(rawValue: EDQUOT))
    } else {
      request.succeed()
    }
  }

  func fsync(_ request: consuming SyncRequest, dataOnly: Bool, _ file: OpenFile<State>) {
    if dataOnly { request.fail(.noSpace) } else { request.succeed() }
  }

  private struct Job {
    let waiting: WaitQueue<ReadRequest>
    let line: String
    let isDropped: Bool
  }

  private func answerInThread(_ line: String, isDropped: Bool) {
    let job = UnsafeMutablePointer<Job>.allocate(capacity: 1)
    job.initialize(to: Job(waiting: waiting, line: line, isDropped: isDropped))
    var thread = pthread_t()
    pthread_create(
      &thread, nil,
      { argument in
        let job = argument!.assumingMemoryBound(to: Job.self)
        usleep(20_000)
        if let request = job.pointee.waiting.popFirst(), !job.pointee.isDropped {
          request.answer(job.pointee.line.utf8)
        }
        job.deinitialize(count: 1)
        job.deallocate()
        return nil
      }, job)
    pthread_detach(thread)
  }
}

@main
struct Main {
  static func main() { DeviceProgram.run(TestDevice(), name: "test-device") }
}
