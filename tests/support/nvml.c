/* A driver library that answers from a text file, read anew at every call: `KEY VALUE` lines, KEY being what is asked.
 *
 *   init 18            nvmlInitWithFlags returns error 18
 *   init hang          ... does not return (for an hour); `init 3.5s` returns after 3.5 s
 *   count 2            how many cards
 *   0.name H100        of card 0; 0.uuid, 0.total, 0.free, 0.busy, 0.celsius likewise, `0.mig 2`: MIG mode with slots for 2
 *   0.1.name MIG 1g    of the MIG instance in slot 1 of card 0; a slot without a uuid is empty
 *   1.handle 15        getting the handle of card 1 returns error 15; 1.memory 3 and so on by function; `hang` works too
 *
 * What is not in the file is NOT_SUPPORTED.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define NOT_FOUND 6

typedef struct { int card; int slot; } Device; /* slot -1: the whole card */
typedef struct { unsigned int version; int sensor; int celsius; } Temperature;
static Device devices[64][8];

static int look_up(const char *key, char *value, size_t size)
{
    char line[512];
    size_t length = strlen(key);
    FILE *file = fopen(getenv("FAKE_NVML"), "r");
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file))
        if (!strncmp(line, key, length) && line[length] == ' ') {
            line[strcspn(line, "\n")] = 0;
            snprintf(value, size, "%s", line + length + 1);
            found = 1;
        }
    if (file) fclose(file);
    return found;
}

/* the scripted outcome of one function: 0, an error, or a while later */
static int outcome(const char *key)
{
    char value[64], *end;
    if (!look_up(key, value, sizeof value)) return 0;
    if (!strcmp(value, "hang")) sleep(3600);
    double number = strtod(value, &end);
    if (*end == 's') { usleep((useconds_t)(number * 1e6)); return 0; }
    return (int)number;
}

static void key_of(const Device *device, const char *what, char *key, size_t size)
{
    if (device->slot < 0) snprintf(key, size, "%d.%s", device->card, what);
    else snprintf(key, size, "%d.%d.%s", device->card, device->slot, what);
}

static int told(const Device *device, const char *what, char *value, size_t size)
{
    char key[64];
    key_of(device, what, key, sizeof key);
    return look_up(key, value, size) ? 0 : NOT_SUPPORTED;
}

static int device_outcome(const Device *device, const char *function)
{
    char key[64];
    key_of(device, function, key, sizeof key);
    return outcome(key);
}

int nvmlInitWithFlags(unsigned int flags) { (void)flags; return outcome("init"); }

int nvmlShutdown(void)
{
    const char *mark = getenv("FAKE_NVML_SHUTDOWN");
    FILE *file = mark ? fopen(mark, "a") : NULL;
    if (file) { fputs("shutdown\n", file); fclose(file); }
    return outcome("shutdown");
}

const char *nvmlErrorString(int error) { (void)error; return "scripted"; }

int nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    return look_up("driver", version, length) ? 0 : NOT_SUPPORTED;
}

int nvmlDeviceGetCount_v2(unsigned int *count)
{
    char value[64];
    *count = look_up("count", value, sizeof value) ? (unsigned int)atoi(value) : 0;
    return outcome("counting");
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Device **device)
{
    if (index >= 64) return INVALID_ARGUMENT;
    *device = &devices[index][7];
    (*device)->card = (int)index;
    (*device)->slot = -1;
    return device_outcome(*device, "handle");
}

int nvmlDeviceGetUUID(Device *device, char *uuid, unsigned int length) { return told(device, "uuid", uuid, length); }
int nvmlDeviceGetName(Device *device, char *name, unsigned int length) { return told(device, "name", name, length); }

int nvmlDeviceGetMemoryInfo(Device *device, unsigned long long memory[3]) /* total, free, used */
{
    char total[64], unused[64];
    int error = device_outcome(device, "memory");
    if (error || told(device, "total", total, sizeof total) || told(device, "free", unused, sizeof unused))
        return error ? error : NOT_SUPPORTED;
    memory[0] = strtoull(total, NULL, 10);
    memory[1] = strtoull(unused, NULL, 10);
    memory[2] = memory[0] - memory[1];
    return 0;
}

int nvmlDeviceGetUtilizationRates(Device *device, unsigned int rates[2])
{
    char value[64];
    if (device_outcome(device, "rates")) return device_outcome(device, "rates");
    if (told(device, "busy", value, sizeof value)) return NOT_SUPPORTED;
    rates[0] = rates[1] = (unsigned int)atoi(value);
    return 0;
}

int nvmlDeviceGetTemperatureV(Device *device, Temperature *answer)
{
    char value[64];
    if (device_outcome(device, "newer")) return device_outcome(device, "newer");
    if (told(device, "celsius", value, sizeof value)) return NOT_SUPPORTED;
    answer->celsius = atoi(value);
    return 0;
}

int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned int *celsius)
{
    char value[64];
    (void)sensor;
    if (told(device, "celsius", value, sizeof value)) return NOT_SUPPORTED;
    *celsius = (unsigned int)atoi(value);
    return 0;
}

int nvmlDeviceGetMigMode(Device *device, unsigned int *now, unsigned int *pending)
{
    char value[64];
    if (told(device, "mig", value, sizeof value)) return NOT_SUPPORTED;
    *now = *pending = 1;
    return 0;
}

int nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned int *count)
{
    char value[64];
    if (told(device, "mig", value, sizeof value)) return NOT_SUPPORTED;
    *count = (unsigned int)atoi(value);
    return 0;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Device *card, unsigned int slot, Device **instance)
{
    char value[64];
    *instance = &devices[card->card][slot];
    (*instance)->card = card->card;
    (*instance)->slot = (int)slot;
    return told(*instance, "uuid", value, sizeof value) ? NOT_FOUND : 0;
}
